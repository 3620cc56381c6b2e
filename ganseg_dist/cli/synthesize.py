"""`ganseg synthesize`: synthetic images from a trained generator."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import typer

from ganseg_dist.cli.options import LABELS_HELP, LAYOUT_HELP, RUN, expanded


@dataclass(frozen=True, slots=True)
class SynthesisOptions:
    """What to generate, from which run, and where to."""

    run: str = RUN
    out: Path = typer.Option(
        ..., metavar="DIR", help="Folder to write into: a new one, or that of an earlier synthesis, which is replaced."
    )
    masks: Path | None = typer.Option(
        None,
        metavar="DATA",
        help="GAN-OSMOSIS: the cohort whose masks images are generated from; the run's training patients when not "
        "given.",
    )
    copies: int | None = typer.Option(
        None, min=1, metavar="N", help="GAN-OSMOSIS: generated images of each mask; 1 when not given."
    )
    as_they_are: bool = typer.Option(False, "--as-they-are", help="GAN-OSMOSIS: do not turn, scale and flip the masks.")
    count: int | None = typer.Option(
        None, min=1, metavar="N", help="Detector: images of each class; 200 when not given."
    )
    classes: list[str] | None = typer.Option(
        None, "--class", metavar="NAME", help="Detector: a class to generate, repeatable; all when not given."
    )
    seed: int = typer.Option(0, min=0, metavar="K", help="Of the noise; the same seed makes the same images.")
    most_memorised: float = typer.Option(
        0.1, min=0, max=1, metavar="SHARE", help="Fail when more than this share repeats training images."
    )
    inception: Path | None = typer.Option(
        None,
        metavar="FILE",
        help="An Inception v3 as ONNX, for FID; else fid_encoder, over the run's segmenter or detector.",
    )
    judge: str | None = typer.Option(
        None,
        metavar="RUN",
        help="Detector: a gan_detector run of the same split that saw no generated image (system.augmentation=none or "
        "classical); it shows whether images have their class.",
    )
    layout: str | None = typer.Option(None, metavar="NAME", help=LAYOUT_HELP.replace("DATA", "--masks"))
    labels: str | None = typer.Option(None, metavar="SCHEME", help=LABELS_HELP.replace("the masks", "--masks"))
    gpu: bool = typer.Option(False, "--gpu", help="Generate on a GPU.")


@expanded
def synthesize(*, options: SynthesisOptions) -> None:
    """Make synthetic images, and check that none repeats a patient.

    GAN-OSMOSIS generates images from masks: DIR gets images/ and masks/. The GAN detector generates from noise: DIR
    gets a folder a class. Beside them are a manifest.csv, so that DIR is a cohort that --data takes; SYNTHETIC.json,
    which states that no patient is in it; audit.json, the nearest training image of each; quality.json, distances with
    those of held-out real images and of controls; and neighbours.png, pairs to look at, with L and R (GANSEG_DISPLAY)
    where no image is mirrored. Masks of validation and test patients are never
    generated. Where too many images repeat training images nothing is written, and the exit code is 1.
    """
    from ganseg_dist.cli.synthesis import make_synthetic

    make_synthetic(options)

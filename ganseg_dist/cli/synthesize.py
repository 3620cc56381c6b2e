"""`ganseg synthesize`: image and mask pairs from a trained generator."""

from __future__ import annotations

from pathlib import Path

import typer

from ganseg_dist.cli import show
from ganseg_dist.cli.words import LAYOUT_HELP, RUN_HELP


def synthesize(
    run: str = typer.Argument(metavar="RUN", help=RUN_HELP),
    out: Path = typer.Option(..., metavar="DIR", help="Folder to write the pairs into; an earlier one is replaced."),
    masks: Path | None = typer.Option(
        None, metavar="DATA", help="The cohort whose masks are painted; the run's own training patients when not given."
    ),
    copies: int = typer.Option(1, min=1, metavar="N", help="Paintings of each mask."),
    as_they_are: bool = typer.Option(False, "--as-they-are", help="Do not turn, scale and flip the masks."),
    seed: int = typer.Option(0, min=0, metavar="K", help="Of the noise; the same seed paints the same images."),
    most_memorised: float = typer.Option(
        0.1, min=0, max=1, metavar="SHARE", help="Refuse when more than this share repeats training images."
    ),
    inception: Path | None = typer.Option(
        None, metavar="FILE", help="An Inception v3 as ONNX, for FID; else fid_encoder, over the run's own segmenter."
    ),
    layout: str | None = typer.Option(None, metavar="NAME", help=LAYOUT_HELP.replace("DATA", "--masks")),
    gpu: bool = typer.Option(False, "--gpu", help="Paint on a GPU."),
) -> None:
    """Paint synthetic images of masks, and check that none repeats a patient.

    DIR gets images, masks and a manifest.csv, so that it is a cohort that --data takes; SYNTHETIC.json, which says
    that no patient is in it; audit.json, the nearest training image of each; quality.json, distances and SSIM with
    their controls; and neighbours.png, the nearest pairs to look at. Masks of validation and test patients are never
    painted. Where too many paintings repeat training images nothing is written, and the exit code is 1.
    """
    from ganseg_dist.cli.models import finished_run, read_slices
    from ganseg_dist.data.readers import read_cohort
    from ganseg_dist.errors import ConfigError, DataError, RunError
    from ganseg_dist.inference.audit import Limits, audit
    from ganseg_dist.inference.encoder import load_inception, segmenter_encoder
    from ganseg_dist.inference.predictor import Predictor
    from ganseg_dist.inference.synthesis import paint, quality, training_images, write_pairs

    found = finished_run(run)
    predictor = Predictor.load(found.model, "cuda" if gpu else "cpu")
    encoder = segmenter_encoder(predictor.system) if inception is None else load_inception(inception)
    asked, split = found.description().get("request", {}), found.split()
    if "data" not in asked:
        raise ConfigError(f"{found.name}: does not say where its data was; train it again to synthesize from it")
    own = read_cohort(Path(asked["data"]), asked.get("layout"))
    source = own if masks is None else read_cohort(masks, layout)
    held_out = {*split.validation, *split.test}
    painted = [case for case in source.cases if case.mask is not None and case.patient not in held_out]
    if not painted:
        raise DataError(f"{source.root}: holds no mask of a patient that {found.name} may paint; give other --masks")
    config = predictor.config
    training = read_slices(
        [case for case in own.of_patients(split.train) if case.mask is not None], config, "Reading the training images"
    )
    shown = training if masks is None else read_slices(painted, config, "Reading the masks")
    with show.bar("Painting") as advance:
        paintings = paint(predictor, shown, copies=copies, deformed=not as_they_are, seed=seed, advance=advance)
    images, owners = training_images(training, flipped=config.data.augment.flip > 0)
    with show.bar("Comparing with the training images"):
        audited = audit(paintings.image, images, patients=owners, encoder=encoder, limits=Limits(share=most_memorised))
        measured = quality(paintings, images, encoder)
    if audited.refused:
        raise RunError(
            f"{found.name}: {audited.share:.1%} of {len(paintings.image)} paintings repeat training images, more than "
            f"{most_memorised:.1%}; train with more patients or fewer joint epochs, nothing was written"
        )
    facts = {"run": found.name, "recipe": config.recipe, "seed": seed, "deformed": not as_they_are}
    write_pairs(out, paintings, audited, measured, images, predictor.modalities, predictor.regions, facts)
    for name, distances in measured["distances"].items():
        said = ", ".join(
            f"{measure} {values.get('mean', values.get('value')):.4f}" for measure, values in distances.items()
        )
        typer.echo(f"{name}: {said}")
    typer.echo(
        f"SSIM with the real image of the mask {measured['ssim']['mean']:.3f}; {len(audited.memorised)} of "
        f"{len(paintings.image)} paintings are nearer to a training image than such images are to each other"
    )
    typer.echo(f"written: {out} ({len(paintings.image)} synthetic pairs)")

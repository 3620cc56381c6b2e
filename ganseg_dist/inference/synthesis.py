"""Synthetic images from a trained generator: painted from masks, measured, audited, and written to be read again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ganseg_dist.atomic import whole_folder, write_csv, write_json
from ganseg_dist.data.augment import augment, draw_augmentation
from ganseg_dist.data.batch import Batch
from ganseg_dist.data.cohort import BRATS_LABELS, SYNTHETIC_TAG
from ganseg_dist.data.slices import SliceSet
from ganseg_dist.drawing import grey, rgb
from ganseg_dist.errors import RunError
from ganseg_dist.inference.audit import Audit
from ganseg_dist.inference.encoder import Encoder, distribution_distances
from ganseg_dist.inference.outputs import OURS
from ganseg_dist.inference.predictor import SLICES_AT_ONCE, Predictor
from ganseg_dist.metrics.synthesis import diversity, structural_similarity

COLOURS = ("red", "green", "blue")
PAINTING = 4
"""The stream of randomness that paintings draw from, beside those of training (engine/loader.py)."""
NEIGHBOURS_SHOWN = 8
MOST_TRAINING_IMAGES = 4000
"""About a gigabyte of four modalities."""


@dataclass(frozen=True, slots=True)
class Paintings:
    """Synthetic images with the masks that they were painted from."""

    image: npt.NDArray[np.float32]
    """(N, C, size, size) in [-1, 1]."""
    regions: npt.NDArray[np.uint8]
    """(N, R, size, size) in {0, 1}."""
    real: npt.NDArray[np.float32]
    """(N, C, size, size), the real image of each mask, turned as the mask was."""
    patients: tuple[str, ...]
    """(N,) whose mask each was painted from."""


def paint(
    predictor: Predictor,
    slices: SliceSet,
    *,
    copies: int = 1,
    deformed: bool = True,
    seed: int = 0,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> Paintings:
    """Paint every slice with a lesion `copies` times.

    What is drawn depends on the seed, the slice's place and the copy alone.

    Args:
        deformed: turn, scale and flip each mask as training does, so that no painting has a patient's own outline.

    Raises RunError when the model has no generator of images from masks, or no slice holds a lesion.
    """
    if "generator" not in predictor.system.networks or predictor.config.system.task != "segmentation":
        raise RunError(f"{predictor.config.system.title}: this model paints no images; train gan_osmosis, with its GAN")
    chosen = np.flatnonzero(slices.has_lesion)
    if not len(chosen):
        raise RunError("masks: none of them holds a lesion to paint; give the cohort whose masks shall be painted")
    wanted = [(copy, index) for copy in range(copies) for index in chosen.tolist()]
    parts: list[tuple[npt.NDArray[Any], ...]] = []
    for start in range(0, len(wanted), SLICES_AT_ONCE):
        some = wanted[start : start + SLICES_AT_ONCE]
        batch = _batch(predictor, slices, some, deformed, seed)
        with torch.inference_mode():
            synthetic = predictor.system.predict(batch.to(predictor.device)).synthetic
        if synthetic is None:
            raise RunError(
                f"{predictor.config.system.title}: this model paints no images; train gan_osmosis, with its GAN"
            )
        parts.append((synthetic.float().cpu().numpy(), batch.regions.numpy().astype(np.uint8), batch.image.numpy()))
        advance(min(start + SLICES_AT_ONCE, len(wanted)), len(wanted))
    image, regions, real = (np.concatenate(pieces) for pieces in zip(*parts, strict=True))
    patients = tuple(slices.cases[slices.case_of[index]].patient for _, index in wanted)
    return Paintings(image, regions, real, patients)


def _batch(predictor: Predictor, slices: SliceSet, some: Sequence[tuple[int, int]], deformed: bool, seed: int) -> Batch:
    config = predictor.config
    indices = np.array([index for _, index in some])
    image, regions = slices.read(indices)
    drawn: list[dict[str, npt.NDArray[np.float32]]] = []
    for copy, index in some:
        rng = np.random.default_rng([seed, PAINTING, copy, index])
        one = predictor.system.draw("segment", rng)
        if deformed:
            one |= draw_augmentation(config.data.augment, len(slices.modalities), rng)
        drawn.append(one)
    draws = {name: torch.from_numpy(np.stack([each[name] for each in drawn])) for name in drawn[0]}
    known = torch.from_numpy(slices.case_of[indices]), torch.from_numpy(slices.label[indices])
    return augment(Batch(torch.from_numpy(image), torch.from_numpy(regions), *known, draws))


def training_images(
    slices: SliceSet, *, flipped: bool, most: int = MOST_TRAINING_IMAGES
) -> tuple[npt.NDArray[np.float32], tuple[str, ...]]:
    """What the generator may have memorised, (M, C, size, size), and each image's patient.

    Args:
        flipped: training flips its images, so that a flipped copy is a copy.
        most: slices taken, evenly spread.
    """
    chosen = np.unique(np.linspace(0, len(slices) - 1, min(len(slices), most)).astype(np.int64))
    images, _ = slices.read(chosen)
    owners = tuple(slices.cases[slices.case_of[index]].patient for index in chosen)
    return (np.concatenate([images, images[..., ::-1]]), owners * 2) if flipped else (images, owners)


def quality(paintings: Paintings, training: npt.NDArray[np.float32], encoder: Encoder, seed: int = 0) -> dict[str, Any]:
    """How near the paintings are to the real images, beside two controls that any generator must beat.

    Distances are of distributions, each with its n: the paintings, uniform noise and the mean training image (with
    a thousandth of noise, for a distribution of one image has no covariance) against the training images
    (M, C, size, size). SSIM is between a painting and the real image of its mask.
    """
    rng = np.random.default_rng(seed)
    shape = paintings.image.shape
    mean = np.broadcast_to(training.mean(axis=0), shape) + 1e-3 * rng.standard_normal(shape)
    candidates = {
        "paintings": paintings.image,
        "control: noise": rng.uniform(-1, 1, shape).astype(np.float32),
        "control: mean image": mean.clip(-1, 1).astype(np.float32),
    }
    return {
        "distances": {name: distribution_distances(encoder, images, training) for name, images in candidates.items()},
        "diversity": asdict(diversity(paintings.image, training)),
        "ssim": asdict(structural_similarity(paintings.image, paintings.real, paintings.patients)),
    }


def write_pairs(
    folder: Path,
    paintings: Paintings,
    audit: Audit,
    measured: Mapping[str, Any],
    training: npt.NDArray[np.float32],
    modalities: Sequence[str],
    regions: Sequence[str],
    facts: Mapping[str, Any],
) -> None:
    """Write image and mask pairs with a manifest.csv that `--data` takes, their audit, and what they look like.

    Patients are numbered: paintings of one patient's masks share a number, so that a split keeps them together.
    Every PNG says in its text that it is synthetic, and SYNTHETIC.json says it of the folder.

    Raises GansegError when the disk refuses, and leaves an earlier folder as it was.
    """
    numbers = {patient: number for number, patient in enumerate(sorted(set(paintings.patients)), start=1)}
    rows = []
    with whole_folder(folder) as unfinished:
        for part in ("images", "masks"):
            (unfinished / part).mkdir()
        for index, (image, mask) in enumerate(zip(paintings.image, paintings.regions, strict=True)):
            name = f"synthetic_{index + 1:05d}"
            cells = _write_image(unfinished, name, image, modalities)
            _save(unfinished / "masks" / f"{name}.png", _labels(mask, regions))
            rows.append(
                {"case": name, "patient": f"synthetic_of_{numbers[paintings.patients[index]]:04d}", "site": "synthetic"}
                | cells
                | {"mask": f"masks/{name}.png", "labels": "binary" if len(regions) == 1 else "brats"}
            )
        write_csv(unfinished / "manifest.csv", rows)
        write_json(unfinished / "audit.json", audit.to_dict())
        write_json(unfinished / "quality.json", dict(measured))
        write_json(unfinished / SYNTHETIC_TAG, {"synthetic": True, "n": len(rows), **facts})
        _save(unfinished / "neighbours.png", _neighbours(paintings, audit, training, modalities))


def _write_image(folder: Path, name: str, image: npt.NDArray[np.float32], modalities: Sequence[str]) -> dict[str, str]:
    """One colour picture, or a grey one for each modality; returns the manifest's cells."""
    if set(modalities) == set(COLOURS):
        _save(folder / "images" / f"{name}.png", rgb(image[[modalities.index(colour) for colour in COLOURS]]))
        return {colour: f"images/{name}.png#{channel}" for channel, colour in enumerate(COLOURS)}
    cells = {}
    for modality, plane in zip(modalities, image, strict=True):
        cells[modality] = f"images/{name}_{modality}.png"
        _save(folder / cells[modality], np.asarray(np.rint((plane + 1) * 127.5), np.uint8))
    return cells


def _labels(mask: npt.NDArray[np.uint8], regions: Sequence[str]) -> npt.NDArray[np.uint8]:
    """(R, H, W) to label values: 255 for one region, BraTS labels for nested ones."""
    labels = np.zeros(mask.shape[1:], np.uint8)
    stored = {ours: value for value, ours in BRATS_LABELS.items()}
    for region, inside in zip(regions, mask, strict=True):
        labels[inside > 0] = 255 if len(regions) == 1 else stored[OURS[region]]
    return labels


def _neighbours(
    paintings: Paintings, audit: Audit, training: npt.NDArray[np.float32], modalities: Sequence[str]
) -> npt.NDArray[np.uint8]:
    """The paintings nearest to a training image, above those images: what a memorised one would look like."""
    nearest = sorted(range(len(audit.images)), key=lambda index: audit.images[index].pixels.percentile)
    columns = [
        np.concatenate(
            [_shown(paintings.image[index], modalities), _shown(training[audit.images[index].pixels.index], modalities)]
        )
        for index in nearest[:NEIGHBOURS_SHOWN]
    ]
    return np.concatenate(columns, axis=1)


def _shown(image: npt.NDArray[np.float32], modalities: Sequence[str]) -> npt.NDArray[np.uint8]:
    if set(modalities) == set(COLOURS):
        return rgb(image[[modalities.index(colour) for colour in COLOURS]])
    return grey(image[-1])


def _save(file: Path, pixels: npt.NDArray[np.uint8]) -> None:
    text = PngInfo()
    text.add_text("Description", "Synthetic image or mask, made by a generator; not a patient")
    Image.fromarray(pixels).save(file, pnginfo=text)

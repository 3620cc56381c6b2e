"""Images generated from masks, or from noise for a class."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ganseg_dist.config import RunConfig
from ganseg_dist.data.augment import augment, sample_augmentation
from ganseg_dist.data.batch import Batch
from ganseg_dist.data.slices import SliceSet
from ganseg_dist.errors import ConfigError, RunError
from ganseg_dist.inference.predictor import SLICES_AT_ONCE, Predictor, check_finite
from ganseg_dist.registry import systems_with
from ganseg_dist.systems.base import GeneratesFromClasses, GeneratesFromMasks

FROM_MASKS = 4
"""Random stream of images generated from masks, beside those of training (engine/loader.py)."""

DRAWS = 20
"""Transforms that are sampled for a mask before it is used unchanged: a lesion that is large and scaled up, or of a few
pixels at the edge of the foreground, leaves the frame under many."""

GENERATION = 5
"""Random stream of images generated for classes, beside FROM_MASKS and those of training."""

COUNT = 200
"""Default number of images of each class: enough for a distance's error to be small beside the controls."""


def check_generator(config: RunConfig) -> None:
    """Raises RunError, naming the field to set, when a run of this config has no generator of whole images."""
    system = config.system
    if system.generates_from is None:
        others = systems_with("generates_from")
        raise RunError(
            f"{system.title}: its generator {system.generator_makes}; train {' or '.join(others)} to have images"
        )
    if system.without_generator is not None:
        raise RunError(f"{system.title}: has no generator, as {system.without_generator}")


@dataclass(frozen=True, slots=True)
class GeneratedSlices:
    """Synthetic images with the masks that they were generated from."""

    image: npt.NDArray[np.float32]
    """(N, C, size, size) in [-1, 1]."""
    regions: npt.NDArray[np.uint8]
    """(N, R, size, size) in {0, 1}."""
    real: npt.NDArray[np.float32]
    """(N, C, size, size), the real image of each mask, turned as the mask was."""
    patients: tuple[str, ...]
    """(N,) whose mask each was generated from."""
    sides_known: bool = False
    """Whether the columns of all run from the patient's left to right: not where some may be mirrored."""


def generate_from_masks(
    predictor: Predictor,
    slices: SliceSet,
    *,
    copies: int = 1,
    deformed: bool = True,
    seed: int = 0,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> GeneratedSlices:
    """Generate `copies` images from the mask of every slice with a lesion.

    The samples depend on the seed, the slice's place and the copy alone.

    Args:
        deformed: turn, scale and flip each mask with its foreground as training does, so that no generated image has a
            patient's outline. A transform that moves the whole lesion out of the frame is sampled again.

    Raises RunError when the model has no generator of images from masks, or no slice holds a lesion, and DataError
    where it generates NaN.
    """
    check_generator(predictor.config)
    if predictor.config.system.generates_from != "masks":
        raise RunError(f"{predictor.config.system.title}: its generator takes no masks; generate images of its classes")
    system = cast("GeneratesFromMasks", predictor.system)
    chosen = np.flatnonzero(slices.has_lesion)
    if not len(chosen):
        raise RunError("masks: none of them holds a lesion; give a cohort whose masks hold some")
    wanted = [(copy, index) for copy in range(copies) for index in chosen.tolist()]
    parts: list[tuple[npt.NDArray[Any], ...]] = []
    for start in range(0, len(wanted), SLICES_AT_ONCE):
        batch = _batch(predictor, slices, wanted[start : start + SLICES_AT_ONCE], deformed, seed)
        on_device = batch.to(predictor.device)
        with torch.inference_mode():
            generated = system.generate(on_device, on_device.samples["z"]).float().cpu().numpy()
        parts.append((generated, batch.regions.numpy().astype(np.uint8), batch.image.numpy()))
        advance(min(start + SLICES_AT_ONCE, len(wanted)), len(wanted))
    image, regions, real = (np.concatenate(pieces) for pieces in zip(*parts, strict=True))
    check_finite("generated images", "image", image)
    patients = tuple(slices.cases[slices.case_of[index]].patient for _, index in wanted)
    mirrored = deformed and predictor.config.data.augment.flip > 0
    return GeneratedSlices(image, regions, real, patients, bool(slices.sides_known[chosen].all()) and not mirrored)


def _batch(predictor: Predictor, slices: SliceSet, some: Sequence[tuple[int, int]], deformed: bool, seed: int) -> Batch:
    parts = [_example(predictor, slices, copy, index, deformed, seed) for copy, index in some]
    return Batch(
        torch.cat([part.image for part in parts]),
        torch.cat([part.regions for part in parts]),
        torch.cat([part.case for part in parts]),
        torch.cat([part.label for part in parts]),
        {name: torch.cat([part.samples[name] for part in parts]) for name in parts[0].samples},
    )


def _example(predictor: Predictor, slices: SliceSet, copy: int, index: int, deformed: bool, seed: int) -> Batch:
    """One slice, transformed or not, with its noise."""
    chosen = np.array([index])
    image, regions = slices.read(chosen)
    rng = np.random.default_rng([seed, FROM_MASKS, copy, index])
    noise = _as_samples(predictor.system.sample("segment", rng))
    known = torch.from_numpy(slices.case_of[chosen]), torch.from_numpy(slices.label[chosen])
    untouched = Batch(torch.from_numpy(image), torch.from_numpy(regions), *known, noise)
    for _ in range(DRAWS if deformed else 0):
        transform = _as_samples(sample_augmentation(predictor.config.data.augment, len(slices.modalities), rng))
        moved = replace(augment(replace(untouched, samples=transform)), samples=noise)
        if moved.regions.any():
            return moved
    return untouched


def _as_samples(arrays: Mapping[str, npt.NDArray[np.float32]]) -> dict[str, Tensor]:
    """The samples of a batch of one."""
    return {name: torch.from_numpy(np.asarray(value)[None]) for name, value in arrays.items()}


@dataclass(frozen=True, slots=True)
class Generated:
    """Synthetic images with the classes that they were made for, class after class."""

    image: npt.NDArray[np.float32]
    """(N, C, size, size) in [-1, 1]."""
    classes: tuple[str, ...]
    """(N,)"""


def generate(
    predictor: Predictor,
    *,
    classes: Sequence[str] | None = None,
    count: int = COUNT,
    seed: int = 0,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> Generated:
    """Generate `count` images of each class.

    The samples depend on the seed, the class and the image's number alone: more images begin with the same ones. By
    default the classes are those that the generator was trained on.

    Raises RunError when the model has no generator of images of a class, ConfigError for a class that it was not
    trained on, and DataError where it generates NaN.
    """
    check_generator(predictor.config)
    if predictor.config.system.generates_from != "classes":
        raise RunError(
            f"{predictor.config.system.title}: its generator knows no classes; generate images from masks with it"
        )
    system = cast("GeneratesFromClasses", predictor.system)
    known = system.generated_classes
    requested = tuple(dict.fromkeys(classes or known))
    unknown = [name for name in requested if name not in known]
    if unknown:
        raise ConfigError(f"--class {unknown[0]}: this generator was trained on {', '.join(known)}; give one of these")
    labels = [system.classes.index(name) for name in requested]
    wanted = [(label, number) for label in labels for number in range(count)]
    parts = []
    for start in range(0, len(wanted), SLICES_AT_ONCE):
        some = wanted[start : start + SLICES_AT_ONCE]
        latents = [system.sample("detect", np.random.default_rng([seed, GENERATION, *each]))["z"] for each in some]
        z, label = torch.from_numpy(np.stack(latents)), torch.tensor([label for label, _ in some])
        with torch.inference_mode():
            generated = system.generate(z.to(predictor.device), label.to(predictor.device))
        parts.append(generated.float().cpu().numpy())
        advance(min(start + SLICES_AT_ONCE, len(wanted)), len(wanted))
    image = np.concatenate(parts)
    check_finite("generated images", "image", image)
    return Generated(image, tuple(system.classes[label] for label, _ in wanted))

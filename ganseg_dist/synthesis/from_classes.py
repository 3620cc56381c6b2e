"""Images generated from noise, of a class, by the GAN detector's generator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
import torch

from ganseg_dist.errors import ConfigError, RunError
from ganseg_dist.inference.predictor import SLICES_AT_ONCE, Predictor, check_finite
from ganseg_dist.synthesis.generators import check_generator
from ganseg_dist.systems.base import GeneratesFromClasses

GENERATION = 5
"""The stream of randomness that generated images draw from, beside FROM_MASKS and those of training."""

COUNT = 200
"""Images of each class where no number is asked for: enough for a distance's error to be small beside the controls."""


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

    What is drawn depends on the seed, the class and the image's number alone: more images begin with the same ones.

    Args:
        classes: those asked for; none: every class that the generator has learnt.

    Raises RunError when the model has no generator of images of a class, and ConfigError for a class that it has not
    learnt, and DataError where it makes NaN.
    """
    check_generator(predictor.config)
    if predictor.config.system.generates_from != "classes":
        raise RunError(
            f"{predictor.config.system.title}: its generator knows no classes; generate images from masks with it"
        )
    system = cast("GeneratesFromClasses", predictor.system)
    learnt = system.generated_classes
    requested = tuple(dict.fromkeys(classes or learnt))
    unknown = [name for name in requested if name not in learnt]
    if unknown:
        raise ConfigError(f"--class {unknown[0]}: this generator has learnt {', '.join(learnt)}; ask for one of these")
    labels = [system.classes.index(name) for name in requested]
    wanted = [(label, number) for label in labels for number in range(count)]
    parts = []
    for start in range(0, len(wanted), SLICES_AT_ONCE):
        some = wanted[start : start + SLICES_AT_ONCE]
        latents = [system.sample("detect", np.random.default_rng([seed, GENERATION, *each]))["z"] for each in some]
        z, label = torch.from_numpy(np.stack(latents)), torch.tensor([label for label, _ in some])
        with torch.inference_mode():
            made = system.generate(z.to(predictor.device), label.to(predictor.device))
        parts.append(made.float().cpu().numpy())
        advance(min(start + SLICES_AT_ONCE, len(wanted)), len(wanted))
    image = np.concatenate(parts)
    check_finite("generated images", "image", image)
    return Generated(image, tuple(system.classes[label] for label, _ in wanted))

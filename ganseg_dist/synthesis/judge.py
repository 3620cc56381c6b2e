"""Scores whether generated images show their classes, by a detector that was trained without generated images.

The detector that was trained with a generator cannot judge: in its training every generated image is of its class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from ganseg_dist.config import RunConfig
from ganseg_dist.errors import ConfigError
from ganseg_dist.evaluation.classification import class_probabilities
from ganseg_dist.inference.predictor import Predictor, check_finite
from ganseg_dist.metrics.synthesis import Images
from ganseg_dist.synthesis.results import JudgedImages, Share

NO_JUDGE = (
    "the run's detector was trained on generated images; give --judge a classifier of the same split that was "
    "trained on real images alone, such as of gan_detector with system.augmentation=none or classical"
)
"""The reason where no judge is given."""

SAME = (
    "modalities", "classes", "size", "spacing_mm", "intensities", "enhance", "equalise", "clusters", "cluster_by",
)  # fmt: skip
"""Fields of the data's config that decide a detector's input and classes."""


@dataclass(frozen=True, slots=True)
class Judge:
    """A run's detector that was trained without generated images."""

    run: str
    predictor: Predictor


def check_judge(name: str, judge: RunConfig, generator: RunConfig) -> None:
    """Raises ConfigError when the run of this name may have seen generated images, or takes images of another kind."""
    if judge.system.task != "classification" or not judge.system.sees_only_real_images:
        raise ConfigError(
            f"--judge {name}: may have seen generated images; give a classifier that was trained on real images alone "
            "and started from no weights, such as of gan_detector with system.augmentation=none or classical"
        )
    for field in SAME:
        given, needed = (getattr(config.data, field) for config in (judge, generator))
        if given != needed:
            raise ConfigError(f"--judge {name}: its data.{field} is {given}, not {needed}; give one trained alike")


def judged(judge: Judge, images: Images, classes: Sequence[str | None]) -> JudgedImages:
    """The share of images (N, C, H, W) that the judge classifies correctly, of all and of each class, each with its n.

    Images whose class is not known do not count; a share of none is None.
    """
    predictions = _predicted_classes(judge.predictor, images)
    right = {
        name: [call == name for call, own in zip(predictions, classes, strict=True) if own == name]
        for name in judge.predictor.config.data.classes or ()
    }
    of_all = _share([*chain.from_iterable(right.values())])
    return JudgedImages(of_all.accuracy, of_all.n, {name: _share(each) for name, each in right.items()})


def _predicted_classes(judge: Predictor, images: Images) -> list[str]:
    classes, every = judge.config.data.classes or (), np.arange(len(images))
    batches = class_probabilities(judge.system, lambda some: images[some], every, classes, judge.device)
    probabilities = {index: probability for batch in batches for index, probability in batch.items()}
    for index, probability in probabilities.items():
        check_finite(f"image {index + 1}", "class probability", probability)
    return [classes[int(np.argmax(probability))] for probability in probabilities.values()]


def _share(right: Sequence[bool]) -> Share:
    return Share(accuracy=float(np.mean(right)) if right else None, n=len(right))

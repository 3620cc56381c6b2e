"""The gain of a detector by a GAN's images: none, classical, gan and both, over several seeds (the review's claim)."""

from __future__ import annotations

from ganseg_dist.config import RunConfig, override
from ganseg_dist.data.cohort import Cohort, Split
from ganseg_dist.data.slices import LESION_CLASSES
from ganseg_dist.errors import ConfigError
from ganseg_dist.registry import systems_with
from ganseg_dist.studies.experiments.measures import ACCURACY, AREAS, SENSITIVITY, SPECIFICITY, Measure
from ganseg_dist.studies.experiments.trials import Trial

MEASURES: tuple[Measure, ...] = (*AREAS, SENSITIVITY, SPECIFICITY, ACCURACY)
"""Sensitivity is at the threshold that reaches a fixed specificity on validation patients; beside it the specificity on
the test patients, and before both the areas, which need no threshold."""


def augmentation_trials(config: RunConfig, cohort: Cohort, split: Split, *, seeds: int) -> list[Trial]:
    """Each arm for every seed, all on the same patients.

    Raises ConfigError for a system that is not the detector, and for more than two classes.
    """
    check_detector(config)
    classes = config.data.classes or cohort.classes or LESION_CLASSES
    if len(classes) > 2:
        raise ConfigError(f"data.classes: are {', '.join(classes)}; name two, the one to be found last")
    return [
        Trial(
            f"{arm}-seed{seed}",
            {"arm": arm, "seed": seed},
            override(config, {"system.augmentation": arm, "seed": seed}),
            split,
        )
        for arm in config.system.augmentation_arms
        for seed in range(seeds)
    ]


def check_detector(config: RunConfig) -> None:
    """Raises ConfigError for another system's recipe."""
    if not config.system.augmentation_arms:
        others = ", ".join(systems_with("augmentation_arms"))
        raise ConfigError(f"{config.recipe}: is no detector with arms of augmentation; choose a recipe of {others}")

"""Arms that an experiment compares on the same patients: training images, loss terms, augmentations, classifiers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ganseg_dist.config import RunConfig, override
from ganseg_dist.data.cohort import Cohort, Split
from ganseg_dist.data.slices import LESION_CLASSES
from ganseg_dist.errors import ConfigError
from ganseg_dist.names import folder_name
from ganseg_dist.registry import systems_with
from ganseg_dist.studies.experiments.measures import ACCURACY, AREAS, SENSITIVITY, SPECIFICITY, Measure
from ganseg_dist.studies.trial import Trial

UNAUGMENTED = {f"data.augment.{field}": 0.0 for field in ("flip", "rotation_degrees", "scale", "gain", "shift")}
IMAGE_ARMS: Mapping[str, Mapping[str, object]] = {
    "real": {"system.gan": False, **UNAUGMENTED},
    "classical": {"system.gan": False},
    "gan": {"system.gan": True, **UNAUGMENTED},
    "both": {"system.gan": True},
}
"""Training images of a segmenter: real ones, augmented ones, ones from a GAN, or all of them."""
AUGMENTATION_MEASURES: tuple[Measure, ...] = (*AREAS, SENSITIVITY, SPECIFICITY, ACCURACY)
"""Sensitivity is at the threshold that reaches a fixed specificity on validation patients; beside it the specificity on
the test patients, and before both the areas, which need no threshold."""


def image_arms(names: Sequence[str], config: RunConfig) -> dict[str, RunConfig]:
    """The config of each named arm. Raises ConfigError for an unknown name, or no names."""
    unknown = [name for name in names if name not in IMAGE_ARMS]
    if unknown:
        raise ConfigError(f"--arms {unknown[0]}: no such arm; choose among {', '.join(IMAGE_ARMS)}")
    if not names:
        raise ConfigError(f"--arms: names none; choose among {', '.join(IMAGE_ARMS)}")
    return {name: override(config, IMAGE_ARMS[name]) for name in names}


def ablation_trials(config: RunConfig, split: Split, *, seeds: int) -> list[Trial]:
    """The whole system, each of its terms off, its printed reading and its control; each for every seed.

    A row whose changes the config already has is left out, as it would repeat the whole system.

    Raises ConfigError for a system without terms to switch off, and for a config that is itself the control or the
    printed reading, which lacks some of the terms.
    """
    check_loss_terms(config)
    active_terms = {
        row: changes for row, changes in config.system.ablations.items() if override(config, changes) != config
    }
    rows: dict[str, Mapping[str, object]] = {
        "whole": {},
        **active_terms,
        "paper reading": {"system.reading": "paper"},
        "control, no GAN": {"system.gan": False},
    }
    return [
        trial
        for row, changes in rows.items()
        for trial in _repeated(folder_name(row), row, override(config, changes), split, seeds)
    ]


def check_loss_terms(config: RunConfig) -> None:
    """Raises ConfigError for a system without loss terms, and for a config that is one of the ablation's rows."""
    _check_has(config, "ablations", "has no loss terms to switch off")
    for field, given in (("gan", config.system.gan is False), ("reading", config.system.reading == "paper")):
        if given:
            raise ConfigError(f"system.{field}: is set as in one of the ablation's rows; leave it out")


def augmentation_trials(config: RunConfig, cohort: Cohort, split: Split, *, seeds: int) -> list[Trial]:
    """A detector with each kind of augmentation (none, classical, gan, both: the review's claim), for every seed.

    Raises ConfigError for a system that is not the detector, and for more than two classes.
    """
    check_detector(config)
    classes = config.data.classes or cohort.classes or LESION_CLASSES
    if len(classes) > 2:
        raise ConfigError(f"data.classes: are {', '.join(classes)}; name two, the one to be found last")
    return [
        trial
        for arm in config.system.augmentation_arms
        for trial in _repeated(arm, arm, override(config, {"system.augmentation": arm}), split, seeds)
    ]


def check_detector(config: RunConfig) -> None:
    """Raises ConfigError for another system's recipe."""
    _check_has(config, "augmentation_arms", "is no detector with arms of augmentation")


def classifier_trials(config: RunConfig, split: Split, *, seeds: int) -> list[Trial]:
    """DL-GAN-CNN, the plain CNN and VGG16 (its Tables 1 to 4), for every seed.

    Raises ConfigError for another system, and for pretrained weights, which fit only one of the classifiers.
    """
    check_baselines(config)
    arms = {name: override(config, changes) for name, changes in config.system.baselines.items()}
    return [trial for name, arm in arms.items() for trial in _repeated(name, arm.system.arm, arm, split, seeds)]


def check_baselines(config: RunConfig) -> None:
    """Raises ConfigError for another system's recipe, and for pretrained weights."""
    _check_has(config, "baselines", "has no such baselines")
    if getattr(config.system, "pretrained", None) is not None:
        raise ConfigError("system.pretrained: fits one of two classifiers; leave it out, all arms start at random")


def _check_has(config: RunConfig, setting: str, problem: str) -> None:
    """Raises ConfigError, with the systems to choose from, where the config's system lacks a setting."""
    if not getattr(config.system, setting):
        raise ConfigError(f"{config.recipe}: {problem}; choose a recipe of {', '.join(systems_with(setting))}")


def _repeated(name: str, arm: str, config: RunConfig, split: Split, seeds: int) -> list[Trial]:
    return [
        Trial(f"{name}-seed{seed}", {"arm": arm, "seed": seed}, override(config, {"seed": seed}), split)
        for seed in range(seeds)
    ]

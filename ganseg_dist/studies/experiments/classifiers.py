"""DL-GAN-CNN beside the plain CNN and VGG16: its Tables 1 to 4 as a measurement."""

from __future__ import annotations

from ganseg_dist.config import RunConfig, override
from ganseg_dist.data.cohort import Split
from ganseg_dist.errors import ConfigError
from ganseg_dist.registry import systems_with
from ganseg_dist.studies.experiments.trials import Trial


def classifier_trials(config: RunConfig, split: Split, *, seeds: int) -> list[Trial]:
    """Each arm for every seed, all on the same patients.

    Raises ConfigError for another system, and for pretrained weights, which fit only one of the classifiers.
    """
    check_baselines(config)
    trials = []
    for slug, changes in config.system.baselines.items():
        arm = override(config, changes)
        for seed in range(seeds):
            labels: dict[str, str | int | float] = {"arm": arm.system.arm, "seed": seed}
            trials.append(Trial(f"{slug}-seed{seed}", labels, override(arm, {"seed": seed}), split))
    return trials


def check_baselines(config: RunConfig) -> None:
    """Raises ConfigError for another system's recipe, and for pretrained weights."""
    if not config.system.baselines:
        others = systems_with("baselines")
        raise ConfigError(f"{config.recipe}: has no such baselines; choose a recipe of {', '.join(others)}")
    if getattr(config.system, "pretrained", None) is not None:
        raise ConfigError("system.pretrained: fits one of two classifiers; leave it out, all arms start at random")

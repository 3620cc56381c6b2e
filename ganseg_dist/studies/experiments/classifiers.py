"""DL-GAN-CNN beside the plain CNN and VGG16: its Tables 1 to 4 as a measurement."""

from __future__ import annotations

from collections.abc import Mapping

from ganseg_dist.config import RunConfig, override
from ganseg_dist.data.cohort import Split
from ganseg_dist.errors import ConfigError
from ganseg_dist.studies.experiments.trials import Trial
from ganseg_dist.systems.dl_gan_cnn.config import DLGANCNNConfig

ARMS: tuple[Mapping[str, object], ...] = (
    {"system.gan": True, "system.classifier": "cnn"},
    {"system.gan": False, "system.classifier": "cnn"},
    {"system.gan": False, "system.classifier": "vgg16"},
)
"""Changed fields of the system and of its two baselines."""

PUBLISHED = {
    "DL-GAN-CNN (CNN)": {"accuracy": 0.9926, "precision": 0.9926, "recall": 0.9842, "f1": 0.9936},
    "CNN": {"accuracy": 0.9539, "precision": 0.91, "recall": 0.95, "f1": 0.93},
    "VGG16, random initialisation": {"accuracy": 0.9369, "precision": 0.92, "recall": 0.921, "f1": 0.6708},
}
"""Tables 1 to 4; of other images, and no target: some contradict each other (docs/decisions/0005)."""


def classifier_trials(config: RunConfig, split: Split, *, seeds: int) -> list[Trial]:
    """Each arm for every seed, all on the same patients.

    Raises ConfigError for another system, and for pretrained weights, which fit only one of the classifiers.
    """
    check_baselines(config)
    trials = []
    for changes in ARMS:
        arm = override(config, changes)
        assert isinstance(arm.system, DLGANCNNConfig), "no change is of the system's name"
        slug = ("gan-" if arm.system.synthesises else "") + arm.system.classifier
        for seed in range(seeds):
            labels: dict[str, str | int | float] = {"arm": arm.system.arm, "seed": seed}
            trials.append(Trial(f"{slug}-seed{seed}", labels, override(arm, {"seed": seed}), split))
    return trials


def check_baselines(config: RunConfig) -> None:
    """Raises ConfigError for another system's recipe, and for pretrained weights."""
    if not isinstance(config.system, DLGANCNNConfig):
        raise ConfigError(f"{config.recipe}: has no such baselines; choose a recipe of dl_gan_cnn")
    if config.system.pretrained is not None:
        raise ConfigError("system.pretrained: fits one of two classifiers; leave it out, all arms start at random")

"""GANet-Seg at three sizes."""

from __future__ import annotations

from ganseg_dist.config import RunConfig, override
from ganseg_dist.systems.ganet_seg.config import GANetSegConfig


def ganet_seg() -> RunConfig:
    """The paper's sizes and schedule (Sections 4.1 and 5.4): for a GPU."""
    return RunConfig(recipe="ganet_seg", system=GANetSegConfig())


def ganet_seg_small() -> RunConfig:
    """Narrow networks and a higher learning rate: a laptop or a CPU node, tens of minutes."""
    return override(
        ganet_seg(),
        {
            "recipe": "ganet_seg_small",
            "system.widths": [16, 32, 64, 128],
            "system.generator_widths": [16, 32, 64, 128],
            "system.discriminator_widths": [16, 32, 64],
            "system.healthy_epochs": 25,
            "system.discriminator_every": 2,  # a small cohort has few steps: one in five would leave it untrained
            "train.batch_size": 16,
            "train.learning_rate": 1e-3,
            "train.epochs": 40,
        },
    )


def ganet_seg_debug() -> RunConfig:
    """Seconds: every phase runs; the model is useless."""
    return override(
        ganet_seg_small(),
        {
            "recipe": "ganet_seg_debug",
            "data.size": 32,
            "data.spacing_mm": 6.0,
            "system.widths": [4, 8, 8],
            "system.generator_widths": [4, 8, 8],
            "system.discriminator_widths": [4, 8],
            "system.healthy_epochs": 2,
            "train.batch_size": 4,
            "train.epochs": 3,  # the first supervised, two adversarial
            "train.balance_every": 1,
        },
    )


RECIPES = (ganet_seg, ganet_seg_small, ganet_seg_debug)

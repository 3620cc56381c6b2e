"""GAN-OSMOSIS at three sizes."""

from __future__ import annotations

from ganseg_dist.config import RunConfig, override
from ganseg_dist.systems.gan_osmosis.config import GANOsmosisConfig


def gan_osmosis() -> RunConfig:
    """The paper's sizes and schedule (experimental set-up: 256 x 256, batch 16, 150 epochs, 70/15/15): for a GPU."""
    base = RunConfig(recipe="gan_osmosis", system=GANOsmosisConfig())
    return override(
        base,
        {
            "data.size": 256,
            "data.spacing_mm": 1.0,
            "data.validation_fraction": 0.15,
            "data.test_fraction": 0.15,
            "train.batch_size": 16,
            "train.epochs": 150,
            "train.learning_rate": 2e-4,  # the paper names none; with betas of 0.5 and 0.999 the usual of a cGAN
            "train.betas": [0.5, 0.999],
            "train.weight_decay": 0.0,  # it would pull a GAN's small weights further down
            "train.ema": 0.99,
        },
    )


def gan_osmosis_small() -> RunConfig:
    """Narrow networks and small slices: a laptop or a CPU node, tens of minutes."""
    return override(
        gan_osmosis(),
        {
            "recipe": "gan_osmosis_small",
            "data.size": 128,
            "data.spacing_mm": 1.5,
            "system.widths": [16, 32, 64, 128],
            "system.generator_widths": [16, 32, 64, 128],
            "system.discriminator_widths": [32, 64, 128],
            "system.joint_epochs": 40,
            "train.epochs": 30,
            "train.learning_rate": 1e-3,
            "system.joint_learning_rate": 5e-4,
        },
    )


def gan_osmosis_debug() -> RunConfig:
    """Seconds: every phase runs; the model is useless."""
    return override(
        gan_osmosis_small(),
        {
            "recipe": "gan_osmosis_debug",
            "data.size": 32,
            "data.spacing_mm": 6.0,
            "system.widths": [4, 8, 8],
            "system.generator_widths": [4, 8, 8],
            "system.discriminator_widths": [4, 8],
            "system.joint_epochs": 2,
            "train.batch_size": 4,
            "train.epochs": 2,
        },
    )


RECIPES = (gan_osmosis, gan_osmosis_small, gan_osmosis_debug)

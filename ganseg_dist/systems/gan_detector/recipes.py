"""The GAN detector at three sizes."""

from __future__ import annotations

from ganseg_dist.config import RunConfig, override
from ganseg_dist.systems.gan_detector.config import GANDetectorConfig


def gan_detector() -> RunConfig:
    """DCGAN's sizes and schedule (Radford et al. 2016: z of 100, Adam with 2e-4 and 0.5): for a GPU.

    The averaged generator is kept (Yazici et al. 2019), and no weight decay pulls its small weights further down.
    """
    base = RunConfig(recipe="gan_detector", system=GANDetectorConfig())
    return override(
        base,
        {
            "data.blank_rate": 1.0,  # images without a lesion are the other class
            "data.skull_stripped": False,
            "train.batch_size": 64,
            "train.epochs": 60,
            "train.learning_rate": 2e-4,
            "train.betas": [0.5, 0.999],
            "train.weight_decay": 0.0,
            "train.ema": 0.99,
        },
    )


def gan_detector_small() -> RunConfig:
    """Narrow networks: a laptop or a CPU node, tens of minutes."""
    return override(
        gan_detector(),
        {
            "recipe": "gan_detector_small",
            "data.size": 64,
            "data.spacing_mm": 3.0,
            "system.widths": [16, 32, 64],
            "system.generator_widths": [16, 32, 64, 128, 128],
            "system.discriminator_widths": [16, 32, 64, 128],
            "system.latent_size": 64,
            "system.synthesis_epochs": 150,
            "train.batch_size": 32,
            "train.epochs": 30,
            "train.learning_rate": 5e-4,
            "system.synthesis_learning_rate": 2e-4,
        },
    )


def gan_detector_debug() -> RunConfig:
    """Seconds: every phase runs; the model is useless."""
    return override(
        gan_detector_small(),
        {
            "recipe": "gan_detector_debug",
            "data.size": 32,
            "data.spacing_mm": 6.0,
            "system.widths": [4, 8],
            "system.generator_widths": [4, 8, 8],
            "system.discriminator_widths": [4, 8],
            "system.latent_size": 8,
            "system.synthesis_epochs": 2,
            "train.batch_size": 4,
            "train.epochs": 2,
        },
    )


RECIPES = (gan_detector, gan_detector_small, gan_detector_debug)

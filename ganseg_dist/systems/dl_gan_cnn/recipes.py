"""DL-GAN-CNN at three sizes."""

from __future__ import annotations

from ganseg_dist.config import RunConfig, override
from ganseg_dist.systems.dl_gan_cnn.config import DLGANCNNConfig


def dl_gan_cnn() -> RunConfig:
    """The paper's pre-processing and widths (Sections 4.2-4.4); it names no size and no schedule. For a GPU."""
    base = RunConfig(recipe="dl_gan_cnn", system=DLGANCNNConfig())
    return override(
        base,
        {
            "data.equalise": "global",
            "data.clusters": 3,
            "data.blank_rate": 1.0,  # images without a lesion are a class of their own
            "train.batch_size": 16,
            "train.epochs": 60,
            "train.learning_rate": 2e-4,  # the usual of a cGAN, with betas of 0.5 and 0.999
            "train.betas": [0.5, 0.999],
        },
    )


def dl_gan_cnn_small() -> RunConfig:
    """Narrow networks: a laptop or a CPU node, tens of minutes."""
    return override(
        dl_gan_cnn(),
        {
            "recipe": "dl_gan_cnn_small",
            "data.size": 64,
            "data.spacing_mm": 3.0,
            "system.widths": [16, 32, 64],
            "system.vgg_width": 16,
            "system.generator_widths": [16, 32, 64],
            "system.discriminator_widths": [16, 32, 64],
            "system.features_epochs": 40,
            "train.epochs": 30,
            "train.learning_rate": 1e-3,
        },
    )


def dl_gan_cnn_debug() -> RunConfig:
    """Seconds: every phase runs; the model is useless."""
    return override(
        dl_gan_cnn_small(),
        {
            "recipe": "dl_gan_cnn_debug",
            "data.size": 32,
            "data.spacing_mm": 6.0,
            "system.widths": [4, 8],
            "system.vgg_width": 2,
            "system.generator_widths": [4, 8, 8],
            "system.discriminator_widths": [4, 8],
            "system.features_epochs": 2,
            "train.batch_size": 4,
            "train.epochs": 2,
        },
    )


RECIPES = (dl_gan_cnn, dl_gan_cnn_small, dl_gan_cnn_debug)

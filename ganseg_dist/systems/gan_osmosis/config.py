"""Fields of GAN-OSMOSIS."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from ganseg_dist.config.fields import BelowOne, Count, Fraction, NonNegative, Positive, Widths
from ganseg_dist.config.system import SystemConfig


class GANOsmosisConfig(SystemConfig):
    """GAN-OSMOSIS: a generator makes images from masks, on which a segmenter is trained beside real ones."""

    title: ClassVar[str] = "GAN-OSMOSIS"

    unet_fields: ClassVar[tuple[str, ...]] = ("widths", "generator_widths")
    patch_fields: ClassVar[tuple[str, ...]] = ("discriminator_widths",)
    generates_from: ClassVar[Literal["masks", "classes"] | None] = "masks"
    ablations: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "no segmentation term": {"system.segmentation_weight": 0.0},
        "no adversarial term": {"system.adversarial_weight": 0.0},
        "no reconstruction term": {"system.reconstruction_weight": 0.0},
        "two networks": {"system.shared": False},
        "mask alone": {"system.foreground_condition": False},
    }
    published: ClassVar[Mapping[str, Mapping[Any, Mapping[str, float]]]] = {
        "fractions": {  # Tables 2, 3 and 5, at each percentage of its own data
            10: {"dice": 0.70, "iou": 0.63, "sensitivity": 0.72},
            20: {"dice": 0.74, "iou": 0.68, "sensitivity": 0.76},
            30: {"dice": 0.77, "iou": 0.72, "sensitivity": 0.80},
            40: {"dice": 0.79, "iou": 0.75, "sensitivity": 0.83},
            50: {"dice": 0.80, "iou": 0.77, "sensitivity": 0.85},
            60: {"dice": 0.81, "iou": 0.78, "sensitivity": 0.86},
            70: {"dice": 0.82, "iou": 0.79, "sensitivity": 0.87},
            80: {"dice": 0.83, "iou": 0.80, "sensitivity": 0.88},
            90: {"dice": 0.84, "iou": 0.81, "sensitivity": 0.89},
            100: {"dice": 0.84, "iou": 0.81, "sensitivity": 0.89},
        }
    }
    example_label: ClassVar[str] = "generated from the mask"
    example_note: ClassVar[str] = (
        "Validation images, and what the generator makes of their masks: another image with the same mask. How "
        "near generated images are to real images is measured by ganseg synthesize."
    )

    name: Literal["gan_osmosis"] = "gan_osmosis"
    widths: Widths = (64, 128, 256, 320)
    """Channels of the final segmenter's levels, finest first."""
    generator_widths: Widths = (64, 128, 256, 320)
    """Channels of the generator's levels."""
    discriminator_widths: Widths = (64, 128, 256)
    """Channels of the PatchGAN's levels; each halves the resolution."""
    shared: bool = True
    """One trunk for images and masks, the paper's one theta_G. False is the ablation: two networks without shared
    weights."""
    foreground_condition: bool = True
    """Show the generator the foreground's outline beside the mask: a tumour's outline does not determine the head
    around it. Needs masks that come with images; off in the paper's reading."""
    joint_epochs: Count = 150
    """Epochs in which generator and discriminator are trained together."""
    joint_learning_rate: Positive | None = None
    """Learning rate of generator and discriminator; none: train.learning_rate."""
    noise: Literal["dropout", "vector"] = "dropout"
    """The noise by which two images of one mask differ: features dropped at random, or a random vector beside the
    mask, as in the paper's reading."""
    dropout: BelowOne = 0.5
    """Share of the decoder's coarse features that are dropped, in training and in synthesis."""
    vector_size: Count = 16
    """Length of the random vector z."""
    segmentation_weight: NonNegative = 10.0
    """lambda_1: of the generator's Dice and cross-entropy."""
    adversarial_weight: NonNegative = 1.0
    """lambda_2: of -log D(G(z|y), y)."""
    reconstruction_weight: NonNegative = 5.0
    """lambda_3: of |x - G(z|y)|_1."""
    diversity_weight: NonNegative = 0.0
    """Weight of a term that keeps two images of one mask different: with L1 alone a generator comes to ignore z."""
    synthetic_share: Fraction = 1.0
    """Synthetic images in X_aug for each real one."""
    least_diversity: NonNegative = 0.002
    """Mean difference of two images of one mask, on the [-1, 1] scale, below which a collapse is warned of."""

"""Fields of the GAN detector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from ganseg_dist.config.fields import Count, NonNegative, Positive, Widths
from ganseg_dist.config.system import SystemConfig


class GANDetectorConfig(SystemConfig):
    """A detector, lesion or none in an image, whose training set a GAN enlarges, as the review proposes.

    The review prints no algorithm, so both readings are the same.
    """

    title: ClassVar[str] = "GAN detector"
    task: ClassVar[Literal["segmentation", "classification"]] = "classification"
    of_control: ClassVar[tuple[str, ...]] = ("reading", "widths", "augmentation", "pretrained")

    generates_from: ClassVar[Literal["masks", "classes"] | None] = "classes"
    augmentation_arms: ClassVar[tuple[str, ...]] = ("none", "classical", "gan", "both")
    example_label: ClassVar[str] = "generated, of the same class"
    example_note: ClassVar[str] = (
        "Validation images, and what the generator makes of noise for their class: it has not seen them. How near "
        "such images are to real ones is measured by ganseg synthesize."
    )

    name: Literal["gan_detector"] = "gan_detector"
    generator: Literal["dcgan", "conditional", "wgan_gp"] = "conditional"
    """conditional is trained on every class; dcgan and wgan_gp on images with a lesion alone, those of the second of
    two data.classes, and their images are positive."""
    augmentation: Literal["none", "classical", "gan", "both"] = "both"
    """Training images of the detector beside the real ones: those transformed by data.augment (classical), generated
    ones (gan), or both."""
    widths: Widths = (32, 64, 128, 256)
    """Channels of the detector's levels, finest first; every level but the first halves the image."""
    generator_widths: Widths = (32, 64, 128, 256, 512, 512)
    """Channels of the generator's levels, finest first; every level but the first halves the image."""
    discriminator_widths: Widths = (64, 128, 256, 512, 512)
    """Channels of the discriminator's, or critic's, levels; each halves the image."""
    latent_size: Count = 100
    """Length of z."""
    synthesis_epochs: Count = 200
    """Epochs of generator and discriminator, before the detector is trained."""
    synthesis_learning_rate: Positive | None = None
    """Learning rate of the GAN; none: train.learning_rate."""
    diffaugment: bool = True
    """Show the discriminator every image, real or generated, with its brightness and contrast changed, moved and partly
    blanked, differently each time: it would soon memorise a few hundred."""
    critic_steps: Count = 5
    """Critic steps to one generator step of wgan_gp; the other generators take one."""
    gradient_penalty_weight: NonNegative = 10.0
    """lambda of wgan_gp."""
    synthetic_weight: NonNegative = 1.0
    """Weight of a generated image in the detector's loss against a real one; every step has as many of each.
    Lower it where dcgan or wgan_gp would make lesions far more frequent than they are."""
    least_diversity: NonNegative = 0.1
    """Difference of two generated images, as a share of a generated one's to a real one, below which a collapse is
    warned of; about 1 where they vary as real ones do."""
    pretrained: str | None = None
    """A safetensors file whose detector.* or classifier.* weights the detector starts from, of the same widths and
    modalities; its last layer starts fresh where the classes differ. Every worker reads it."""

    @property
    def synthesises(self) -> bool:
        return self.gan and self.augmentation in ("gan", "both")

    @property
    def sees_only_real_images(self) -> bool:
        """Whether the detector is not trained on generated images, nor started from weights that may be."""
        return not self.synthesises and self.pretrained is None

    @property
    def without_generator(self) -> str | None:
        if self.gan and not self.synthesises:
            return f"system.augmentation is {self.augmentation}; train with system.augmentation=gan or both"
        return super().without_generator

    @property
    def transforms(self) -> bool:
        """Whether the detector's real images are augmented the classical way."""
        return self.augmentation in ("classical", "both")

    @property
    def unet_widths(self) -> Mapping[str, tuple[int, ...]]:
        """Detector and generator, which halve the slice as a U-Net does."""
        return {"widths": self.widths} | ({"generator_widths": self.generator_widths} if self.synthesises else {})

    @property
    def patch_widths(self) -> Mapping[str, tuple[int, ...]]:
        return {"discriminator_widths": self.discriminator_widths} if self.synthesises else {}

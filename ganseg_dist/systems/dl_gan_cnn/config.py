"""Fields of DL-GAN-CNN."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from ganseg_dist.config.fields import Count, NonNegative, Positive, Widths
from ganseg_dist.config.system import SystemConfig


class DLGANCNNConfig(SystemConfig):
    """DL-GAN-CNN: a GAN turns an image and its k-means mask into a feature map, and a CNN classifies the map.

    Its baselines are arms of it: `gan=False` classifies the image itself, by the same CNN or by a VGG16.
    """

    title: ClassVar[str] = "DL-GAN-CNN"
    task: ClassVar[Literal["segmentation", "classification"]] = "classification"
    paper_data: ClassVar[Mapping[str, Any]] = {"data.cluster_by": "coordinates"}
    of_control: ClassVar[tuple[str, ...]] = (
        "reading", "classifier", "widths", "vgg_width", "vgg_learning_rate", "pretrained",
    )  # fmt: skip

    baselines: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "gan-cnn": {"system.gan": True, "system.classifier": "cnn"},
        "cnn": {"system.gan": False, "system.classifier": "cnn"},
        "vgg16": {"system.gan": False, "system.classifier": "vgg16"},
    }
    published: ClassVar[Mapping[str, Mapping[Any, Mapping[str, float]]]] = {
        "classifiers": {  # Tables 1 to 4, some of which contradict each other (docs/decisions/0005)
            "DL-GAN-CNN (CNN)": {"accuracy": 0.9926, "precision": 0.9926, "recall": 0.9842, "f1": 0.9936},
            "CNN": {"accuracy": 0.9539, "precision": 0.91, "recall": 0.95, "f1": 0.93},
            "VGG16, random initialisation": {"accuracy": 0.9369, "precision": 0.92, "recall": 0.921, "f1": 0.6708},
        }
    }
    example_label: ClassVar[str] = "feature map"
    example_note: ClassVar[str] = (
        "Validation images, and the feature maps that the generator makes of them and of their clusters: what the "
        "classifier sees."
    )
    generator_makes: ClassVar[str] = "makes feature maps for its classifier, which no command writes"

    name: Literal["dl_gan_cnn"] = "dl_gan_cnn"
    classifier: Literal["cnn", "vgg16"] = "cnn"
    """The small CNN, or VGG16, which starts from random weights unless `pretrained` is given."""
    widths: Widths = (32, 64, 128, 256)
    """Channels of the small CNN's levels, finest first; every level but the first halves the image."""
    vgg_width: Count = 64
    """Channels of VGG16's first block; 64 is the published network."""
    vgg_learning_rate: Positive = 1e-4
    """Adam's for VGG16, which has no normalisation: at ten times this it stays at chance, from random weights."""
    pretrained: str | None = None
    """A safetensors file that the classifier starts from: torchvision's names for a VGG16, detector.* or classifier.*
    for the small CNN. The last layer starts fresh where the classes differ. Every worker reads it."""
    generator_widths: Widths = (64, 128, 256)
    """Channels of the generator's levels."""
    discriminator_widths: Widths | None = None
    """Channels of the discriminator's levels, each of which halves the map; none: 64, 128, 256, or 64, 32, 16 in the
    paper's reading."""
    features_epochs: Count = 100
    """Epochs of generator and discriminator, before the classifier is trained."""
    adversarial_weight: NonNegative = 1.0
    """Weight of the generator's adversarial term."""
    reconstruction_weight: NonNegative = 100.0
    """Weight of the L1 between generated and real feature map; the paper's reading has none."""

    @property
    def sees_only_real_images(self) -> bool:
        """Whether the classifier is not trained on feature maps, nor started from weights that may be."""
        return not self.synthesises and self.pretrained is None

    @property
    def arm(self) -> str:
        """Its name in tables: the classifier, its input, and the initial weights of a VGG16."""
        start = "random initialisation" if self.pretrained is None else "pretrained"
        classifier = "CNN" if self.classifier == "cnn" else f"VGG16, {start}"
        return f"{self.title} ({classifier})" if self.gan else classifier

    @property
    def unet_widths(self) -> Mapping[str, tuple[int, ...]]:
        """The small CNN, which halves the slice as a U-Net does, and the generator."""
        return ({"widths": self.widths} if self.classifier == "cnn" else {}) | (
            {"generator_widths": self.generator_widths} if self.gan else {}
        )

    @property
    def patch_widths(self) -> Mapping[str, tuple[int, ...]]:
        return {"discriminator_widths": self.discriminator_channels} if self.gan else {}

    @property
    def discriminator_channels(self) -> tuple[int, ...]:
        """The discriminator's widths, as given or by the reading."""
        by_reading = (64, 32, 16) if self.reading == "paper" else (64, 128, 256)
        return self.discriminator_widths or by_reading

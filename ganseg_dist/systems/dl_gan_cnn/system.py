"""DL-GAN-CNN: a GAN turns an image and its k-means mask into a feature map, and a CNN classifies the map
("Deep Learning-Driven Medical Image Segmentation Using Generative Adversarial Networks and Conditional Neural
Networks", Al-Ghanimi and Al-Ghanimi 2025).

The corrected reading is the default; `reading="paper"` takes the printed equations. What differs, and why, is in
docs/decisions/0005-dl-gan-cnn-readings.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganseg_dist.config import RunConfig
from ganseg_dist.data.batch import BACKGROUND, Batch
from ganseg_dist.errors import ConfigError
from ganseg_dist.losses.adversarial import discriminator_loss, generator_loss
from ganseg_dist.models.classifier import Classifier, load_pretrained
from ganseg_dist.models.dcgan import DCGANDiscriminator
from ganseg_dist.models.vgg16 import VGG16, hidden_units
from ganseg_dist.systems.base import Alarm, LossesByPhase, Monitor, Phase, Prediction, Ratio, Stage
from ganseg_dist.systems.classification import classification_ratios, cross_entropies
from ganseg_dist.systems.dl_gan_cnn.config import DLGANCNNConfig
from ganseg_dist.systems.dl_gan_cnn.networks import FeatureGenerator

RIM = 5
"""Side of the square that the brightest cluster is dilated by, in pixels."""

DROPOUT = 0.5
"""Share of VGG16's hidden units that are dropped (Simonyan and Zisserman 2015, Section 3.1)."""

LEAST_PRESENCE = 0.1
"""Brightness of the generated maps, as a share of the real ones', below which they count as empty."""


@dataclass(frozen=True, slots=True)
class DropoutSampler:
    """`System.sample`: dropout factors of VGG16's hidden units."""

    units: int
    """Number of units of both hidden layers; 0: nothing is dropped."""

    def __call__(self, stage: str, rng: np.random.Generator) -> dict[str, npt.NDArray[np.float32]]:
        """One example's factor for each unit, 0 or 1 / (1 - p)."""
        if not self.units or stage != "classify":
            return {}
        return {"kept": ((rng.random(self.units) >= DROPOUT) / (1 - DROPOUT)).astype(np.float32)}


class DLGANCNN(LossesByPhase):
    """Networks `classifier`, and with the GAN `generator` and `discriminator`; stages `features` and `classify`.

    Preparation appends the k-means mask to the image's channels where `data.clusters` is set; a batch's image is then
    (B, C + 1, H, W), C being the number of modalities. Feature maps are not stored: every step of the classifier
    generates them anew, from augmented images.
    """

    def __init__(self, config: RunConfig) -> None:
        if config.data.modalities is None or config.data.classes is None:
            raise ConfigError("data.modalities and data.classes must be resolved from a cohort first")
        assert isinstance(config.system, DLGANCNNConfig)
        self.config = system = config.system
        if system.gan and config.data.clusters is None:
            raise ConfigError(
                "data.clusters: the generator needs the initial mask of k-means; set it to 3, or system.gan to false"
            )
        self.channels = len(config.data.modalities)
        self.annotated = config.data.regions is not None
        self.paper = system.reading == "paper"
        networks: dict[str, nn.Module] = {
            "classifier": _classifier(system, self.channels, len(config.data.classes)),
        }
        if system.gan:
            conditions = self.channels + 1
            networks["generator"] = FeatureGenerator(conditions, self.channels, system.generator_widths)
            channels_in = self.channels if self.paper else self.channels + conditions
            networks["discriminator"] = DCGANDiscriminator(channels_in, config.data.size, system.discriminator_channels)
        self.networks: Mapping[str, nn.Module] = networks
        self.sample = DropoutSampler(2 * hidden_units(system.vgg_width) if system.classifier == "vgg16" else 0)
        self.stages: tuple[Stage, ...] = (_classify_stage(config, system),)
        if system.gan:
            self.stages = (_features_stage(config, system, self.paper), *self.stages)

    def validate(self, stage: str, batch: Batch) -> dict[str, Ratio]:
        """Similarity of G's maps and the real ones; or the classifier's accuracy and cross-entropy."""
        if stage == "features":
            return self._likeness(batch)
        return classification_ratios(self._logits(self._classified_image(batch)), batch.label)

    def predict(self, batch: Batch) -> Prediction:
        """Class probabilities; and the feature maps that were classified."""
        inputs = self._classified_image(batch)
        classes = torch.softmax(self._logits(inputs).float(), dim=1)
        return Prediction(classes=classes, synthetic=inputs if self.config.gan else None)

    def features(self, batch: Batch) -> Tensor:
        """G(z | c), Eq. 6: the feature map (B, C, H, W) in [-1, 1], background exactly -1."""
        made: Tensor = self.networks["generator"](self.condition(batch))
        return torch.where(batch.foreground, made, torch.full_like(made, BACKGROUND))

    def real_features(self, batch: Batch) -> Tensor:
        """The image inside the expert's mask; without masks, inside the brightest cluster and its rim.

        (B, C, H, W) in [-1, 1], all else -1: on intensities from 0, the image times the mask.
        """
        if self.annotated:
            region = batch.regions.amax(dim=1, keepdim=True) > 0
        else:
            region = F.max_pool2d(self._initial_mask(batch), RIM, stride=1, padding=RIM // 2) > 0
        image = self._image(batch)
        return torch.where(region & batch.foreground, image, torch.full_like(image, BACKGROUND))

    def condition(self, batch: Batch) -> Tensor:
        """c: the image and its initial mask; (B, C + 1, H, W) in [-1, 1]."""
        return torch.cat([self._image(batch), self._initial_mask(batch)], dim=1)

    def _discriminator_losses(self, batch: Batch) -> dict[str, Tensor]:
        with torch.no_grad():
            made = self.features(batch)
        real, fake = self._discriminate(self.real_features(batch), batch), self._discriminate(made, batch)
        return {"discriminator": discriminator_loss(real, fake, torch.ones_like(fake))}

    def _generator_losses(self, batch: Batch) -> dict[str, Tensor]:
        made = self.features(batch)
        fake = self._discriminate(made, batch)
        if self.paper:
            return {"adversarial": saturating_generator_loss(fake)}
        return {
            "adversarial": generator_loss(fake, torch.ones_like(fake)),
            "reconstruction": (made - self.real_features(batch)).abs().mean(),
        }

    def _classifier_losses(self, batch: Batch) -> dict[str, Tensor]:
        with torch.no_grad():
            inputs = self._classified_image(batch)
        return {"cross_entropy": cross_entropies(self._logits(inputs, batch.samples), batch.label).mean()}

    def _likeness(self, batch: Batch) -> dict[str, Ratio]:
        """`l1` over the foreground between generated and real map; `presence`, the brightness of the generated one
        where the real one is not empty, as a share of the real: 0 is an empty map; empty slices do not count.
        """
        made, real = self.features(batch), self.real_features(batch)
        pixels = batch.foreground.expand_as(real).flatten(1).sum(1).double()
        difference = (made - real).abs().flatten(1).sum(1).double()
        mapped = real > BACKGROUND
        generated, wanted = (((part - BACKGROUND) * mapped).flatten(1).sum(1).double() for part in (made, real))
        return {"l1": Ratio(difference, pixels, pixels), "presence": Ratio(generated, wanted, wanted)}

    def _classified_image(self, batch: Batch) -> Tensor:
        """The classifier's input, (B, C, H, W): feature maps, or the images themselves."""
        return self.features(batch) if self.config.gan else self._image(batch)

    def _logits(self, inputs: Tensor, samples: Mapping[str, Tensor] | None = None) -> Tensor:
        """(B, K). Units are dropped only where samples are given."""
        classifier = self.networks["classifier"]
        dropped = {"kept": samples["kept"]} if samples is not None and "kept" in samples else {}
        logits: Tensor = classifier(inputs, **dropped)
        return logits

    def _discriminate(self, features: Tensor, batch: Batch) -> Tensor:
        """(B, 1) logits of D(x | c); of D(x) as Eq. 8 prints its fake term and Section 4.4.2 its input."""
        if not self.paper:
            features = torch.cat([features, self.condition(batch)], dim=1)
        logits: Tensor = self.networks["discriminator"](features)
        return logits[:, None]

    def _image(self, batch: Batch) -> Tensor:
        return batch.image[:, : self.channels]

    def _initial_mask(self, batch: Batch) -> Tensor:
        """(B, 1, H, W), -1 or 1, without augmentation's changes of brightness and blurred edges."""
        return torch.where(batch.image[:, self.channels :] > 0, 1.0, BACKGROUND)


def saturating_generator_loss(fake_logits: Tensor) -> Tensor:
    """Eq. 8 as printed: G minimises E[log(1 - D(G(z)))], whose gradient vanishes where D is confident."""
    return F.logsigmoid(-fake_logits.float()).mean()


def _classifier(system: DLGANCNNConfig, channels: int, classes: int) -> nn.Module:
    """Randomly initialised, or from the user's file."""
    file = None if system.pretrained is None else Path(system.pretrained)
    if system.classifier == "vgg16":
        vgg16 = VGG16(channels, classes, system.vgg_width)
        if file is not None:
            vgg16.load_pretrained(file)
        return vgg16
    cnn = Classifier(channels, classes, system.widths)
    if file is not None:
        load_pretrained(cnn, file)
    return cnn


def _features_stage(config: RunConfig, system: DLGANCNNConfig, paper: bool) -> Stage:
    """The GAN. The last epoch is kept: the maps nearest to the real ones need not classify best."""
    weights = {"adversarial": system.adversarial_weight}
    if not paper:
        weights["reconstruction"] = system.reconstruction_weight
    return Stage(
        name="features",
        phases=(
            Phase("discriminator", ("discriminator",), {"discriminator": 1.0}),
            Phase("generator", ("generator",), weights),
        ),
        epochs=system.features_epochs,
        learning_rate=config.train.learning_rate,
        scores=("l1", "presence"),
        monitor=Monitor(()),
        alarms=(
            Alarm(
                "presence",
                LEAST_PRESENCE,
                "the feature maps are empty where real ones are not; unless it passes, raise system.features_epochs or "
                "train.learning_rate",
            ),
        ),
    )


def _classify_stage(config: RunConfig, system: DLGANCNNConfig) -> Stage:
    return Stage(
        name="classify",
        phases=(Phase("classifier", ("classifier",), {"cross_entropy": 1.0}),),
        epochs=config.train.epochs,
        learning_rate=system.vgg_learning_rate if system.classifier == "vgg16" else config.train.learning_rate,
        scores=("accuracy", "cross_entropy"),
        monitor=Monitor(("cross_entropy",)),
    )

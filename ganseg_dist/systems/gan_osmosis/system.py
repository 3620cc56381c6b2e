"""GAN-OSMOSIS: a generator makes images from masks, and a segmenter is trained on real and generated images alike
("GAN-OSMOSIS: A Generative Adversarial Network-Based Framework for Optimized Osteosarcoma Segmentation and Multimetric
Evaluation Using Synthetic Imaging Support").

The corrected reading is the default; `reading="paper"` takes the printed algorithm. What differs, and why, is in
docs/decisions/0004-gan-osmosis-readings.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ganseg_dist.config import RunConfig
from ganseg_dist.data.batch import BACKGROUND, Batch
from ganseg_dist.errors import ConfigError
from ganseg_dist.losses.adversarial import discriminator_loss, diversity_loss, generator_loss
from ganseg_dist.models.layers import small_initialise
from ganseg_dist.models.patch_discriminator import PatchDiscriminator
from ganseg_dist.models.unet import UNet
from ganseg_dist.systems.base import Alarm, LossesByPhase, Monitor, Phase, Prediction, Ratio, Stage
from ganseg_dist.systems.gan_osmosis.config import GANOsmosisConfig
from ganseg_dist.systems.gan_osmosis.networks import MaskConditionedGenerator, noise_size
from ganseg_dist.systems.regions import Head, dice_names, dice_ratios, region_probability, segmentation_loss


@dataclass(frozen=True, slots=True)
class NoiseSampler:
    """`System.sample`: z, a second z to compare with, and whether X_aug holds a generated image of this example."""

    size: int
    dropout: float | None
    """Share of features dropped; none: z is a normal vector."""
    synthetic_share: float

    def __call__(self, stage: str, rng: np.random.Generator) -> dict[str, npt.NDArray[np.float32]]:
        """One example's noise; none for a plain segmenter."""
        if not self.size:
            return {}
        samples = {"z": self._noise(rng), "generated": np.array(rng.random() < self.synthetic_share, np.float32)}
        return samples | {"other_z": self._noise(rng)} if stage == "joint" else samples

    def _noise(self, rng: np.random.Generator) -> npt.NDArray[np.float32]:
        if self.dropout is None:
            return rng.standard_normal(self.size, np.float32)
        return ((rng.random(self.size) >= self.dropout) / (1 - self.dropout)).astype(np.float32)


class GANOsmosis(LossesByPhase):
    """Networks `segmenter`, and with the GAN `generator` and `discriminator`; stages `joint` and `segment`.

    X_aug is not stored: every step of the segmenter generates images from its batch's masks anew.
    """

    head: Head = "sigmoid"

    def __init__(self, config: RunConfig) -> None:
        if config.data.modalities is None or config.data.regions is None:
            raise ConfigError("data.modalities and data.regions must be resolved from a cohort first")
        assert isinstance(config.system, GANOsmosisConfig)
        self.config = system = config.system
        paper = system.reading == "paper"
        noise = "vector" if paper else system.noise
        self.shows_foreground = system.foreground_condition and not paper
        self.regions = config.data.regions
        if system.gan and not _generator_weights(system):
            raise ConfigError(
                "system.segmentation_weight, adversarial_weight, reconstruction_weight and diversity_weight: are all "
                "0, so that the generator is not trained; raise one, or set system.gan=false"
            )
        channels, regions = len(config.data.modalities), len(self.regions)
        networks: dict[str, nn.Module] = {"segmenter": UNet(channels, regions, system.widths)}
        size = 0
        if system.gan:
            conditions = regions + self.shows_foreground
            networks["generator"] = MaskConditionedGenerator(
                channels,
                conditions,
                regions,
                system.generator_widths,
                shared=system.shared,
                noise=noise,
                vector_size=system.vector_size,
            )
            networks["discriminator"] = PatchDiscriminator(channels + conditions, system.discriminator_widths)
            small_initialise(networks["discriminator"])
            size = system.vector_size if noise == "vector" else noise_size(system.generator_widths)
        self.networks: Mapping[str, nn.Module] = networks
        self.sample = NoiseSampler(size, None if noise == "vector" else system.dropout, system.synthetic_share)
        self.stages: tuple[Stage, ...] = (_segment_stage(config),)
        if system.gan:
            self.stages = (_joint_stage(config, system), *self.stages)

    def validate(self, stage: str, batch: Batch) -> dict[str, Ratio]:
        """Dice of G(x), L1 and diversity of G(z|y); or the segmenter's Dice on real images."""
        if stage == "segment":
            return dice_ratios(self._probability(batch.image), batch.regions, self.regions)
        segmented = self._generator_probability(batch.image)
        first, second = (self.generate(batch, batch.samples[z]) for z in ("z", "other_z"))
        size = torch.full_like(batch.case, batch.image[0].numel(), dtype=torch.float64)
        return dice_ratios(segmented, batch.regions, self.regions) | {
            name: Ratio((one - other).abs().flatten(1).sum(1), size, size)
            for name, one, other in (("l1", first, batch.image), ("diversity", first, second))
        }

    def predict(self, batch: Batch) -> Prediction:
        """Region probabilities of the segmenter; and a generated image, where the batch has masks and noise for one.

        For a batch of the joint stage the probabilities are the generator's: the segmenter is not trained yet.
        """
        synthetic = self.generate(batch, batch.samples["z"]) if "z" in batch.samples else None
        probability = (
            self._generator_probability(batch.image) if "other_z" in batch.samples else self._probability(batch.image)
        )
        return Prediction(probability, synthetic=synthetic)

    def condition(self, batch: Batch) -> Tensor:
        """y: the regions, with the foreground's outline where the generator is shown it; (B, R or R + 1, H, W)."""
        return torch.cat([batch.regions, batch.foreground.float()], dim=1) if self.shows_foreground else batch.regions

    def generate(self, batch: Batch, z: Tensor) -> Tensor:
        """G(z | y) in (-1, 1), background exactly -1 where the foreground's outline is known; (B, C, H, W)."""
        generated = self._generator.generate(self.condition(batch), z)
        return (
            torch.where(batch.foreground, generated, torch.full_like(generated, BACKGROUND))
            if self.shows_foreground
            else generated
        )

    def _discriminator_losses(self, batch: Batch) -> dict[str, Tensor]:
        with torch.no_grad():
            generated = self.generate(batch, batch.samples["z"])
        real, fake = self._discriminate(batch.image, batch), self._discriminate(generated, batch)
        return {"discriminator": discriminator_loss(real, fake, torch.ones_like(fake))}

    def _generator_losses(self, batch: Batch) -> dict[str, Tensor]:
        """The terms that have a weight; the others are not computed."""
        z, other_z = batch.samples["z"], batch.samples["other_z"]
        generated = self.generate(batch, z)
        terms: dict[str, Callable[[], Tensor]] = {
            "segmentation": lambda: segmentation_loss(self._generator.segment(batch.image), batch.regions, self.head),
            "adversarial": lambda: self._feedback_loss(generated, batch),
            "reconstruction": lambda: (generated.float() - batch.image).abs().mean(),
            "diversity": lambda: diversity_loss(generated, self.generate(batch, other_z), z, other_z),
        }
        return {name: terms[name]() for name in _generator_weights(self.config)}

    def _feedback_loss(self, generated: Tensor, batch: Batch) -> Tensor:
        logits = self._discriminate(generated, batch)
        return generator_loss(logits, torch.ones_like(logits))

    def _segmenter_losses(self, batch: Batch) -> dict[str, Tensor]:
        """On X_aug: each example's image, and beside it one generated from its mask, or the same image again."""
        image, truth = batch.image, batch.regions
        if self.config.gan:
            with torch.no_grad():
                generated = self.generate(batch, batch.samples["z"]).to(image.dtype)
            chosen = batch.samples["generated"][:, None, None, None] > 0
            image, truth = torch.cat([image, torch.where(chosen, generated, image)]), torch.cat([truth, truth])
        return {"segmentation": segmentation_loss(self.networks["segmenter"](image), truth, self.head)}

    @property
    def _generator(self) -> MaskConditionedGenerator:
        generator = self.networks["generator"]
        assert isinstance(generator, MaskConditionedGenerator)
        return generator

    def _discriminate(self, image: Tensor, batch: Batch) -> Tensor:
        logits: Tensor = self.networks["discriminator"](torch.cat([image, self.condition(batch)], dim=1))
        return logits

    def _generator_probability(self, image: Tensor) -> Tensor:
        return region_probability(self._generator.segment(image), self.head)

    def _probability(self, image: Tensor) -> Tensor:
        return region_probability(self.networks["segmenter"](image), self.head)


def _generator_weights(system: GANOsmosisConfig) -> dict[str, float]:
    weights = {
        "segmentation": system.segmentation_weight,
        "adversarial": system.adversarial_weight,
        "reconstruction": system.reconstruction_weight,
        "diversity": system.diversity_weight,
    }
    return {name: weight for name, weight in weights.items() if weight}


def _joint_stage(config: RunConfig, system: GANOsmosisConfig) -> Stage:
    """Lines 5-19. The last epoch is kept: no score of a GAN shows which of its epochs generates the best images.

    Without the adversarial term no discriminator is trained.
    """
    weights = _generator_weights(system)
    discriminator = Phase("discriminator", ("discriminator",), {"discriminator": 1.0})
    generator = Phase("generator", ("generator",), weights)
    return Stage(
        name="joint",
        phases=(discriminator, generator) if "adversarial" in weights else (generator,),
        epochs=system.joint_epochs,
        learning_rate=system.joint_learning_rate or config.train.learning_rate,
        scores=(*dice_names(config.data.regions or ()), "l1", "diversity"),
        monitor=Monitor(()),
        alarms=(
            Alarm(
                "diversity",
                system.least_diversity,
                "two images of one mask are the same: the generator ignores z; raise system.diversity_weight",
            ),
        ),
    )


def _segment_stage(config: RunConfig) -> Stage:
    scores = dice_names(config.data.regions or ())
    return Stage(
        name="segment",
        phases=(Phase("segmenter", ("segmenter",), {"segmentation": 1.0}),),
        epochs=config.train.epochs,
        learning_rate=config.train.learning_rate,
        scores=scores,
        monitor=Monitor(scores),
    )

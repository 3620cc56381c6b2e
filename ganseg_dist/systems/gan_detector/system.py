"""The GAN detector: a GAN generates images with lesions, and a detector of lesions is trained on real and generated
ones (proposed by "The Application of Generative Adversarial Networks in Spinal Cord Cancer Detection", a review
without data; its generators are DCGAN, the conditional GAN and WGAN-GP).
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
from ganseg_dist.data.batch import Batch
from ganseg_dist.errors import ConfigError
from ganseg_dist.losses.adversarial import discriminator_loss, generator_loss
from ganseg_dist.losses.diffaugment import augment, sample_view
from ganseg_dist.losses.wasserstein import critic_feedback_loss, critic_loss, gradient_penalty
from ganseg_dist.models.classifier import Classifier, load_pretrained
from ganseg_dist.models.dcgan import DCGANDiscriminator, DCGANGenerator
from ganseg_dist.systems.base import Alarm, LossesByPhase, Monitor, Phase, Prediction, Ratio, Stage
from ganseg_dist.systems.classification import classification_ratios, cross_entropies
from ganseg_dist.systems.gan_detector.config import GANDetectorConfig

LESION = 1
"""The class of an unconditional generator's images."""


@dataclass(frozen=True, slots=True)
class LatentSampler:
    """`System.sample`: z, a second z to compare with, the point between real and generated of the gradient penalty, and
    the views of a real image, of a generated one, and of that in the generator's step.
    """

    size: int
    """Length of z; 0: no GAN."""
    diffaugment: bool
    """Whether the discriminator's input is changed at random."""

    def __call__(self, stage: str, rng: np.random.Generator) -> dict[str, npt.NDArray[np.float32]]:
        """One example's noise; none for a detector without a GAN."""
        if not self.size:
            return {}
        samples = {"z": rng.standard_normal(self.size, np.float32)}
        if stage == "synthesis":
            samples |= {
                "other_z": rng.standard_normal(self.size, np.float32),
                "mix": np.array(rng.random(), np.float32),
            }
            if self.diffaugment:
                samples |= {view: sample_view(rng) for view in ("real_view", "made_view", "feedback_view")}
        return samples


class GANDetector(LossesByPhase):
    """Networks `detector`, and with the GAN `generator` and `discriminator`; stages `synthesis` and `detect`.

    X_aug is not stored: every step of the detector adds a newly generated image to each real one. The GAN is trained
    on the same images for any `augmentation`: the arms with a GAN share one generator and differ in the classical half
    alone. Its discriminator sees them through DiffAugment.
    """

    def __init__(self, config: RunConfig) -> None:
        if config.data.modalities is None or config.data.classes is None:
            raise ConfigError("data.modalities and data.classes must be resolved from a cohort first")
        assert isinstance(config.system, GANDetectorConfig)
        self.config = system = config.system
        self.classes = config.data.classes
        self.conditional = system.generator == "conditional"
        if system.synthesises and not self.conditional and len(self.classes) > 2:
            raise ConfigError(
                f"system.generator: {system.generator} makes images of one class and cannot distinguish "
                f"{', '.join(self.classes[1:])}; take conditional"
            )
        channels = len(config.data.modalities)
        detector = Classifier(channels, len(self.classes), system.widths)
        if system.pretrained is not None:
            load_pretrained(detector, Path(system.pretrained))
        networks: dict[str, nn.Module] = {"detector": detector}
        if system.synthesises:
            conditions, size = len(self.classes) if self.conditional else 0, config.data.size
            networks["generator"] = DCGANGenerator(
                system.latent_size + conditions, channels, size, system.generator_widths
            )
            networks["discriminator"] = DCGANDiscriminator(
                channels, size, system.discriminator_widths, outputs=max(1, conditions)
            )
        self.networks: Mapping[str, nn.Module] = networks
        self.sample = LatentSampler(system.latent_size if system.synthesises else 0, system.diffaugment)
        self.stages: tuple[Stage, ...] = (_detect_stage(config, system),)
        if system.synthesises:
            self.stages = (_synthesis_stage(config, system), *self.stages)

    def validate(self, stage: str, batch: Batch) -> dict[str, Ratio]:
        """Diversity of generated images; or the detector's accuracy and cross-entropy on real images."""
        return (
            self._diversity(batch)
            if stage == "synthesis"
            else classification_ratios(self.networks["detector"](batch.image), batch.label)
        )

    def predict(self, batch: Batch) -> Prediction:
        """Class probabilities; and a generated image of each example's class, where the batch has noise for one."""
        synthetic = self.generate(batch.samples["z"], batch.label) if "z" in batch.samples else None
        classes = torch.softmax(self.networks["detector"](batch.image).float(), dim=1)
        return Prediction(classes=classes, synthetic=synthetic)

    @property
    def generated_classes(self) -> tuple[str, ...]:
        """Every class where the generator is conditional, else lesions alone."""
        return self.classes if self.conditional else (self.classes[LESION],)

    def generate(self, z: Tensor, label: Tensor) -> Tensor:
        """G(z) or G(z | label), (B, C, H, W) in (-1, 1), of a normal z (B, latent_size).

        An unconditional generator makes lesions for any label.
        """
        images: Tensor = self.networks["generator"](
            torch.cat([z, self._one_hot(label).to(z.dtype)], dim=1) if self.conditional else z
        )
        return images

    def _discriminator_losses(self, batch: Batch) -> dict[str, Tensor]:
        with torch.no_grad():
            made = self._augmented(self.generate(batch.samples["z"], batch.label), batch, "made_view")
        image, counts = self._augmented(batch.image, batch, "real_view"), self._counts(batch.label)
        real, fake = self._discriminate(image, batch.label), self._discriminate(made, batch.label)
        if self.config.generator != "wgan_gp":
            return {"discriminator": discriminator_loss(_column(real), _column(fake), _column(counts))}
        penalty = gradient_penalty(
            lambda between: self._discriminate(between, batch.label), image, made, batch.samples["mix"], counts
        )
        return {"critic": critic_loss(real, fake, counts), "gradient_penalty": penalty}

    def _generator_losses(self, batch: Batch) -> dict[str, Tensor]:
        made = self._augmented(self.generate(batch.samples["z"], batch.label), batch, "feedback_view")
        fake = self._discriminate(made, batch.label)
        counts = self._counts(batch.label)
        if self.config.generator == "wgan_gp":
            return {"adversarial": critic_feedback_loss(fake, counts)}
        return {"adversarial": generator_loss(_column(fake), _column(counts))}

    def _detector_losses(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy of real images, and of as many generated ones with the class they were made for."""
        detector = self.networks["detector"]
        terms = {"real": cross_entropies(detector(batch.image), batch.label).mean()}
        if self.config.synthesises:
            with torch.no_grad():
                made = self.generate(batch.samples["z"], batch.label).to(batch.image.dtype)
            label = batch.label if self.conditional else torch.full_like(batch.label, LESION)
            terms["synthetic"] = cross_entropies(detector(made), label).mean()
        return terms

    def _diversity(self, batch: Batch) -> dict[str, Ratio]:
        """|G(z1) - G(z2)|, absolute and relative to |G(z1) - x|, over the examples that the GAN is trained on.

        Were generated and real images of one distribution, both differences would have the same mean (Szekely and
        Rizzo's energy distance would be 0). Pairs of real images would do too, but which ones lie in a batch depends
        on the number of workers.
        """
        one, other = (self.generate(batch.samples[z], batch.label) for z in ("z", "other_z"))
        counts = self._counts(batch.label).double()
        between = (one - other).abs().flatten(1).mean(1) * counts
        to_real = (one - batch.image).abs().flatten(1).mean(1) * counts
        return {"diversity": Ratio(between, counts, counts), "relative_diversity": Ratio(between, to_real, counts)}

    def _counts(self, label: Tensor) -> Tensor:
        """(B,) in {0, 1}: which examples the GAN is trained on, lesions alone or every known class.

        The losses' means are over the whole batch, those that do not count being 0: they are the means over those
        that count times their share of the batch. Dividing by the share would leave Adam's steps as they are, and
        dividing by each worker's share would make the result depend on the number of workers.
        """
        return (label >= (0 if self.conditional else LESION)).float()

    def _augmented(self, image: Tensor, batch: Batch, view: str) -> Tensor:
        return augment(image, batch.samples[view]) if self.config.diffaugment else image

    def _discriminate(self, image: Tensor, label: Tensor) -> Tensor:
        """(B,) logits: is it real, and where the GAN is conditional, is it a real image of its class."""
        logits: Tensor = self.networks["discriminator"](image)
        return (logits * self._one_hot(label)).sum(1) if self.conditional else logits[:, 0]

    def _one_hot(self, label: Tensor) -> Tensor:
        """(B, K); an unknown class becomes the first and counts nowhere."""
        return F.one_hot(label.clamp(min=0), len(self.classes))


def _column(values: Tensor) -> Tensor:
    """(B,) as the (B, 1, 1, 1) of patch losses: one patch an image."""
    return values[:, None, None, None]


def _synthesis_stage(config: RunConfig, system: GANDetectorConfig) -> Stage:
    """The GAN. Its last epoch is kept: no score of a GAN shows which of its epochs makes the best images."""
    wasserstein = system.generator == "wgan_gp"
    critic_weights = {"critic": 1.0, "gradient_penalty": system.gradient_penalty_weight} if wasserstein else {}
    return Stage(
        name="synthesis",
        phases=(
            Phase("discriminator", ("discriminator",), critic_weights or {"discriminator": 1.0}),
            Phase("generator", ("generator",), {"adversarial": 1.0}, every=system.critic_steps if wasserstein else 1),
        ),
        epochs=system.synthesis_epochs,
        learning_rate=system.synthesis_learning_rate or config.train.learning_rate,
        scores=("diversity", "relative_diversity"),
        monitor=Monitor(()),
        augmented=False,
        alarms=(
            Alarm(
                "relative_diversity",
                system.least_diversity,
                "generated images are nearly the same: the generator has collapsed; take system.generator=wgan_gp "
                "or a lower system.synthesis_learning_rate",
            ),
        ),
    )


def _detect_stage(config: RunConfig, system: GANDetectorConfig) -> Stage:
    weights = {"real": 1.0} | ({"synthetic": system.synthetic_weight} if system.synthesises else {})
    return Stage(
        name="detect",
        phases=(Phase("detector", ("detector",), weights),),
        epochs=config.train.epochs,
        learning_rate=config.train.learning_rate,
        scores=("accuracy", "cross_entropy"),
        monitor=Monitor(("cross_entropy",)),
        augmented=system.transforms,
    )

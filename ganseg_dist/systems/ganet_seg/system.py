"""GANet-Seg: a GAN learns to fill holes with healthy tissue, then its discriminator shows a U-Net where its mask
leaves tumour behind ("GANet-Seg: Adversarial Learning for Brain Tumor Segmentation with Hybrid Generative Models").

The corrected reading is the default; `reading="paper"` takes the printed equations. What differs, and why, is in
docs/decisions/0003-ganet-seg-readings.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganseg_dist.config import RunConfig
from ganseg_dist.data.batch import Batch
from ganseg_dist.errors import ConfigError
from ganseg_dist.losses.adversarial import (
    adversarial_feedback_loss_paper,
    discriminator_loss,
    edge_map,
    edge_map_paper,
    generator_loss,
    hole_l1_loss,
)
from ganseg_dist.losses.segmentation import size_consistency_loss, sparsity_penalty
from ganseg_dist.models.patch_discriminator import PatchDiscriminator
from ganseg_dist.models.unet import UNet
from ganseg_dist.systems.base import Balance, LossesByPhase, Monitor, Phase, Prediction, Ratio, Stage
from ganseg_dist.systems.ganet_seg.config import GANetSegConfig, HoleConfig
from ganseg_dist.systems.ganet_seg.holes import cut_holes, sample_holes
from ganseg_dist.systems.ganet_seg.lesions import add_lesion, sample_lesion
from ganseg_dist.systems.ganet_seg.networks import InpaintingGenerator
from ganseg_dist.systems.regions import (
    Head,
    dice_names,
    dice_ratios,
    head_channels,
    likely_regions,
    region_probability,
    segmentation_loss,
)

WHOLE_TUMOUR = 0
"""Index of the region that the adversarial term acts on: healthy tissue has no sub-regions."""


@dataclass(frozen=True, slots=True)
class HealthySampler:
    """`System.sample`: holes and synthetic lesions for pretraining. Loader processes get this, not the networks."""

    holes: HoleConfig
    channels: int
    """Number of the GAN's channels."""

    def __call__(self, stage: str, rng: np.random.Generator) -> dict[str, npt.NDArray[np.float32]]:
        """One example's parameters; none outside the pretraining."""
        if stage != "healthy":
            return {}
        return {"holes": sample_holes(self.holes, rng), **sample_lesion(self.channels, rng)}


class GANetSeg(LossesByPhase):
    """Networks `segmenter`, and with the GAN `generator` and `discriminator`; stages `healthy` and `segment`."""

    def __init__(self, config: RunConfig) -> None:
        if config.data.modalities is None or config.data.regions is None:
            raise ConfigError("data.modalities and data.regions must be resolved from a cohort first")
        assert isinstance(config.system, GANetSegConfig)
        self.config = config.system
        self.paper = self.config.reading == "paper"
        self.head: Head = "softmax" if self.paper else "sigmoid"
        modalities, regions = config.data.modalities, config.data.regions
        self.gan_modalities = self.config.healthy_modalities or modalities
        unknown = [name for name in self.gan_modalities if name not in modalities]
        if unknown:
            raise ConfigError(f"system.healthy_modalities: {unknown[0]} is not among {', '.join(modalities)}")
        self.gan_channels = [modalities.index(name) for name in self.gan_modalities]
        self.reduce = "sum" if self.paper else "mean"

        networks: dict[str, nn.Module] = {
            "segmenter": UNet(len(modalities), head_channels(self.head, len(regions)), self.config.widths)
        }
        if self.config.gan:
            channels = len(self.gan_modalities)
            networks["generator"] = InpaintingGenerator(
                channels, self.config.generator_widths, smooth_guess=not self.paper
            )
            networks["discriminator"] = PatchDiscriminator(channels, self.config.discriminator_widths)
        self.networks: Mapping[str, nn.Module] = networks
        self.regions = regions
        self.sample = HealthySampler(self.config.holes, len(self.gan_channels))
        self.stages: tuple[Stage, ...] = (_segment_stage(config, self.config),)
        if self.config.gan:
            self.stages = (_healthy_stage(config, self.config), *self.stages)

    def validate(self, stage: str, batch: Batch) -> dict[str, Ratio]:
        """`hole_l1` on healthy tissue, or each region's Dice at 0.5 over the cases that have it."""
        if stage == "healthy":
            holes = cut_holes(batch.samples["holes"], batch.foreground)
            _, reconstruction = self.fill(batch.image, holes)
            error = ((reconstruction - batch.image).abs() * holes).flatten(1).sum(1)
            size = holes.flatten(1).sum(1)
            return {"hole_l1": Ratio(error, size * batch.image.shape[1], size)}
        return dice_ratios(self._probability(batch.image), batch.regions, self.regions)

    def predict(self, batch: Batch) -> Prediction:
        """Region probabilities; with the GAN also realism, anomaly and the healthy reconstruction."""
        probability = self._probability(batch.image)
        if not self.config.gan:
            return Prediction(probability)
        image = batch.image[:, self.gan_channels]
        filled, _ = self.fill(image, likely_regions(probability, self.regions)[:, [WHOLE_TUMOUR]].float())
        realism = torch.sigmoid(self.networks["discriminator"](image).float())
        return Prediction(
            probability=probability,
            anomaly=F.interpolate(1 - realism, size=image.shape[-2:], mode="bilinear", align_corners=False),
            reconstruction=filled,
            score=self._slice_score(realism, batch.foreground),
        )

    def fill(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """`x * (1 - M) + G(x * (1 - M), M) * M` and G's raw output; x (B, C', H, W) in [-1, 1].

        The mask, (B, 1, H, W) in [0, 1], is soft during training.
        """
        kept = image * (1 - mask)
        reconstruction = self.networks["generator"](kept, mask)
        return kept + reconstruction * mask, reconstruction

    def feedback(self, image: Tensor, mask: Tensor, edges_of: Tensor | None = None) -> Tensor:
        """L_adv of a mask on its image, (B, C', H, W) and (B, 1, H, W); `edges_of` scores it on another's edge."""
        discriminator = self.networks["discriminator"]
        if self.paper:
            height, width = mask.shape[-2:]
            edges = F.interpolate(edge_map_paper(mask, (height // 5, width // 5)), size=(height, width), mode="nearest")
            masked = image * mask * edges.clamp(0, 1)
            return adversarial_feedback_loss_paper(discriminator(self.networks["generator"](masked, mask)))
        filled, _ = self.fill(image, mask)
        logits = discriminator(filled)
        return generator_loss(
            logits, edge_map(mask if edges_of is None else edges_of, (logits.shape[-2], logits.shape[-1]))
        )

    def _generator_losses(self, batch: Batch) -> dict[str, Tensor]:
        holes = cut_holes(batch.samples["holes"], batch.foreground)
        filled, reconstruction = self.fill(batch.image, holes)
        logits = self.networks["discriminator"](filled)
        return {
            "adversarial": generator_loss(logits, self._changed(holes, logits)),
            "hole_l1": hole_l1_loss(reconstruction, batch.image, holes),
        }

    def _discriminator_losses(self, batch: Batch) -> dict[str, Tensor]:
        holes = cut_holes(batch.samples["holes"], batch.foreground)
        with torch.no_grad():
            filled, _ = self.fill(batch.image, holes)
        discriminator = self.networks["discriminator"]
        fake_logits = discriminator(filled)
        real_logits = discriminator(batch.image)
        terms = {"discriminator": discriminator_loss(real_logits, fake_logits, self._changed(holes, fake_logits))}
        if _lesion_weight(self.config):
            samples = batch.samples
            with_lesion, lesion = add_lesion(
                batch.image,
                batch.foreground,
                samples["lesion_outline"],
                samples["lesion_tone"],
                samples["lesion_opacity"],
            )
            lesion_logits = discriminator(with_lesion)
            terms["lesion"] = discriminator_loss(real_logits, lesion_logits, self._changed(lesion, lesion_logits))
        return terms

    def _supervised_losses(self, batch: Batch) -> dict[str, Tensor]:
        return {"segmentation": self._segmentation_loss(self.networks["segmenter"](batch.image), batch)}

    def _adversarial_losses(self, batch: Batch) -> dict[str, Tensor]:
        logits = self.networks["segmenter"](batch.image)
        mask = region_probability(logits, self.head)[:, [WHOLE_TUMOUR]]
        truth = batch.regions[:, [WHOLE_TUMOUR]]
        terms = {"segmentation": self._segmentation_loss(logits, batch)}
        if self.config.adversarial_weight:  # with 0, no pass through discriminator and generator is needed
            terms["adversarial"] = self.feedback(batch.image[:, self.gan_channels], mask)
        return terms | {
            "sparsity": sparsity_penalty(mask, reduce=self.reduce),
            "size": size_consistency_loss(mask, truth, floor=0.0 if self.paper else 0.01),
        }

    def _segmentation_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        return segmentation_loss(logits, batch.regions, self.head, reduce=self.reduce)

    def _probability(self, image: Tensor) -> Tensor:
        return region_probability(self.networks["segmenter"](image), self.head)

    def _changed(self, changed: Tensor, logits: Tensor) -> Tensor:
        """Weights (B, 1, h, w) of patches in the GAN's losses: those with changed pixels count; in Eqs. 1-2 all do."""
        if self.paper:
            return torch.ones_like(logits)
        return F.adaptive_max_pool2d(changed, (logits.shape[-2], logits.shape[-1]))

    def _slice_score(self, realism: Tensor, foreground: Tensor) -> Tensor:
        """Patch realism (B, 1, h, w) to one score a slice, over the patches that hold foreground; 1 without any."""
        inside = F.adaptive_max_pool2d(foreground.float(), (realism.shape[-2], realism.shape[-1])).flatten(1) > 0
        patches = realism.flatten(1)
        match self.config.score:
            case "mean":
                score = (patches * inside).sum(1) / inside.sum(1).clamp(min=1)
            case "min":
                score = patches.masked_fill(~inside, 1.0).amin(1)
            case "quantile":
                score = torch.nanquantile(patches.masked_fill(~inside, torch.nan), self.config.score_quantile, dim=1)
        return torch.where(inside.any(1), score, torch.ones_like(score))


def _healthy_stage(config: RunConfig, system: GANetSegConfig) -> Stage:
    paper = system.reading == "paper"
    l1_weight = 0.0 if paper else system.hole_l1_weight
    discriminator_weights = {"discriminator": 1.0, "lesion": _lesion_weight(system)}
    return Stage(
        name="healthy",
        phases=(
            Phase("generator", ("generator",), {"adversarial": 1.0, "hole_l1": l1_weight}),
            Phase("discriminator", ("discriminator",), discriminator_weights, every=system.discriminator_every),
        ),
        epochs=system.healthy_epochs,
        learning_rate=system.healthy_learning_rate or config.train.learning_rate,
        scores=("hole_l1",),
        monitor=Monitor(("hole_l1",), patience=system.healthy_patience),
        examples="tumour_free",
        source="healthy" if system.healthy_cohort else "cohort",
        modalities=system.healthy_modalities,
    )


def _segment_stage(config: RunConfig, system: GANetSegConfig) -> Stage:
    epochs = config.train.epochs
    scores = dice_names(config.data.regions or ())
    plain = Phase("supervised", ("segmenter",), {"segmentation": 1.0})
    phases: tuple[Phase, ...] = (plain,)
    supervised = 0
    if system.gan:
        supervised = epochs // 3 if system.supervised_epochs is None else system.supervised_epochs
        if supervised >= epochs:
            raise ConfigError(
                f"system.supervised_epochs: {supervised} of train.epochs={epochs} leaves no adversarial epoch; "
                "lower it, or set system.gan=false"
            )
        balance = Balance(
            parameter="segmenter.head.weight",
            reference="segmentation",
            rule="inverse" if system.reading == "paper" else "ratio",
            decay=system.balance_decay,
            clip=system.balance_clip,
        )
        weights = {
            "segmentation": 1.0,
            "adversarial": system.adversarial_weight,
            "sparsity": system.sparsity_weight,
            "size": system.size_weight,
        }
        phases = (
            replace(plain, epochs=range(supervised)),
            Phase(
                "adversarial",
                ("segmenter",),
                weights,
                epochs=range(supervised, epochs),
                balance=balance,
            ),
        )
    return Stage(
        name="segment",
        phases=phases,
        epochs=epochs,
        learning_rate=config.train.learning_rate,
        scores=scores,
        # An epoch before the adversarial phase would be the plain arm's, whatever its score.
        monitor=Monitor(scores, since=supervised),
    )


def _lesion_weight(system: GANetSegConfig) -> float:
    """Weight of synthetic lesions among the discriminator's fakes: the paper has none."""
    return 0.0 if system.reading == "paper" else system.synthetic_lesion_weight

"""The toy system's networks and losses, apart from its config, which loads no torch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ganseg_dist.config import RunConfig
from ganseg_dist.data.batch import Batch
from ganseg_dist.models.unet import UNet
from ganseg_dist.systems.base import Monitor, Phase, Prediction, Ratio, Stage
from ganseg_dist.systems.regions import Head, dice_names, dice_ratios, region_probability, segmentation_loss


class Toy:
    """One stage, `segment`, in which `segmenter` and `generator` step together."""

    head: Head = "sigmoid"

    def __init__(self, config: RunConfig) -> None:
        self.gan = config.system.gan
        self.regions = config.data.regions
        channels, regions = len(config.data.modalities), len(self.regions)
        self.networks: dict[str, nn.Module] = {"segmenter": UNet(channels, regions, config.system.widths)}
        weights = {"real": 1.0}
        if self.gan:
            self.networks["generator"] = nn.Conv2d(channels, channels, 1)
            weights["recoloured"] = config.system.recoloured_weight
        scores = dice_names(self.regions)
        self.stages = (
            Stage(
                name="segment",
                phases=(Phase("supervised", tuple(self.networks), weights),),
                epochs=config.train.epochs,
                learning_rate=config.train.learning_rate,
                scores=scores,
                monitor=Monitor(scores),
            ),
        )

    def sample(self, stage: str, rng: np.random.Generator) -> dict[str, npt.NDArray[np.float32]]:
        return {}

    def losses(self, phase: str, batch: Batch) -> dict[str, Tensor]:
        terms = {"real": self._loss(batch.image, batch.regions)}
        if self.gan:
            terms["recoloured"] = self._loss(torch.tanh(self.networks["generator"](batch.image)), batch.regions)
        return terms

    def validate(self, stage: str, batch: Batch) -> dict[str, Ratio]:
        return dice_ratios(self.predict(batch).probability, batch.regions, self.regions)

    def predict(self, batch: Batch) -> Prediction:
        return Prediction(region_probability(self.networks["segmenter"](batch.image), self.head))

    def _loss(self, image: Tensor, truth: Tensor) -> Tensor:
        return segmentation_loss(self.networks["segmenter"](image), truth, self.head)

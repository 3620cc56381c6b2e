"""A system of two scalars, small enough to train by hand."""

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from ganseg_dist.config import override
from ganseg_dist.data.batch import Batch
from ganseg_dist.engine.trainer import prepare_state
from ganseg_dist.engine.world import World
from ganseg_dist.systems import recipe
from ganseg_dist.systems.base import Monitor, Phase, Prediction, Ratio, Stage


class Scalar(nn.Module):
    """One trainable number."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor([value]))

    def forward(self) -> torch.Tensor:
        return self.value.sum()


class Toy:
    """Networks `first` and `second`; both phases push a number along a slope of 1, through the other network too."""

    def __init__(self, *stages: Stage) -> None:
        self.networks = {"first": Scalar(1.0), "second": Scalar(2.0)}
        self.stages = stages or (stage(),)

    def sample(self, stage, rng):
        return {"noise": rng.uniform(size=1).astype(np.float32)}

    def losses(self, phase, batch):
        product = self.networks["first"]() * self.networks["second"]()
        return {"product": product, "spread": (batch.image.mean() * 0 + product) * 2}

    def validate(self, stage, batch):
        ones = torch.ones(len(batch.image), dtype=torch.float64)
        return {"accuracy": Ratio(ones * self.networks["first"]().double(), ones, ones)}

    def predict(self, batch):
        return Prediction(probability=batch.regions * 0.5)


FIRST = Phase("first", ("first",), {"product": 1.0, "spread": 0.5})
SECOND = Phase("second", ("second",), {"product": 1.0, "spread": 0.0}, every=2)


def stage(**changes) -> Stage:
    return replace(
        Stage(
            name="toy",
            phases=(FIRST, SECOND),
            epochs=4,
            learning_rate=0.1,
            scores=("accuracy",),
            monitor=Monitor(("accuracy",)),
        ),
        **changes,
    )


def config(**changes):
    return override(recipe("ganet_seg_debug"), {"train.weight_decay": 0.0, "train.clip_norm": None, **changes})


def state_of(system, **changes):
    return prepare_state(system, config(**changes), World())


def batch() -> Batch:
    return Batch(torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4), *torch.zeros(2, 2, dtype=torch.int64))

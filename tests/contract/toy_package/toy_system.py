"""A third-party system found by an entry point: a U-Net and a one-layer generator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from optuna.trial import BaseTrial

from ganseg_dist.config import RunConfig, SystemConfig, override
from ganseg_dist.registry import SystemEntry
from ganseg_dist.studies.sweeps.space import Space


class ToyConfig(SystemConfig):
    """A U-Net that learns from real images and from copies that a layer has recoloured."""

    title: ClassVar[str] = "Toy"
    generator_makes: ClassVar[str] = "recolours images, which no command writes"

    name: Literal["toy"] = "toy"
    widths: tuple[int, ...] = (4, 8)
    """Channels of the U-Net's levels."""
    recoloured_weight: float = 1.0
    """Weight of the loss on recoloured copies."""

    @property
    def unet_widths(self) -> Mapping[str, tuple[int, ...]]:
        return {"widths": self.widths}


def toy_debug() -> RunConfig:
    """Seconds: one stage, one phase."""
    small = {"data.size": 32, "data.spacing_mm": 6.0, "train.batch_size": 4, "train.epochs": 2}
    return override(RunConfig(recipe="toy_debug", system=ToyConfig()), small)


def recolouring(trial: BaseTrial, config: RunConfig) -> None:
    """The weight of the recoloured copies."""
    trial.suggest_float("system.recoloured_weight", 0.1, 2.0)


RECIPES = (toy_debug,)
SPACES = (Space("toy", "toy", recolouring),)
ENTRY = SystemEntry(
    "toy_system:ToyConfig", "toy_networks:Toy", "toy_system:RECIPES", "toy_system:SPACES",
    "toy_evidence:evidence", "toy_evidence:SECTION",
)  # fmt: skip

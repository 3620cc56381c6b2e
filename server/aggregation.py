"""Applies the federation's strategy (`ganseg_dist.federation.strategy`) to the updates that the firewall accepts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from ganseg_dist.config import RunConfig
from ganseg_dist.config.federation import FederationConfig
from ganseg_dist.errors import ConfigError
from ganseg_dist.federation.shared_parameters import Arrays
from ganseg_dist.federation.strategy import StageState, strategy_of


def validate_setup(config: RunConfig, sites: int) -> None:
    """Raises ConfigError for a strategy that does not work with this many sites or with this recipe."""
    name, strategy = config.federation.strategy, strategy_of(config.federation)
    needed = strategy.least_answers()
    if sites < needed:
        settings = ", ".join(f"federation.{field}={value}" for field, value in strategy)
        raise ConfigError(
            f"federation.strategy: {name} needs {needed} sites{settings and f' for {settings}'} and there are {sites}; "
            "take fedavg, whose firewall needs no majority"
        )
    if config.train.ema is not None and not strategy.updates_averages:
        raise ConfigError(
            f"federation.strategy: {name} moves the weights and not their running averages, which {config.recipe} "
            "keeps; add train.ema=none, or take another strategy"
        )


class Aggregator:
    """One strategy over the rounds of a stage."""

    def __init__(self, config: FederationConfig) -> None:
        self.strategy = strategy_of(config)
        self.begin()

    def begin(self) -> None:
        """Start a new stage, with other tensors and without moments."""
        self.state = StageState()

    def merge(
        self, sent: Arrays, updates: Mapping[str, Arrays], weights: Mapping[str, float]
    ) -> dict[str, npt.NDArray[np.float32]]:
        """The strategy's aggregate as float32; see `Strategy.aggregate`."""
        merged = self.strategy.aggregate(sent, updates, weights, self.state)
        self.state.rounds += 1
        return {name: merged[name].astype(np.float32, copy=False) for name in sent}

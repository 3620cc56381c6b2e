"""Federations: how often sites send updates, and the strategy that combines them."""

from __future__ import annotations

from optuna.trial import BaseTrial

from ganseg_dist.config import RunConfig
from ganseg_dist.federation.strategy import strategies
from ganseg_dist.studies.sweeps.space import Space


def federation(trial: BaseTrial, config: RunConfig) -> None:
    """Rounds, and so local epochs between two of them; the strategy and its hyperparameters."""
    every_second, every_fifth = (max(1, config.train.epochs // apart) for apart in (2, 5))
    trial.suggest_categorical("federation.rounds", list(dict.fromkeys([None, every_second, every_fifth])))
    searched = {
        name: strategy.searched
        for name, strategy in strategies().items()
        if strategy.searched is not None and (config.train.ema is None or strategy.updates_ema)
    }
    for field, (low, high) in searched[trial.suggest_categorical("federation.strategy", list(searched))].items():
        trial.suggest_float(f"federation.{field}", low, high, log=True)


SPACES = (Space("federation", None, federation),)

"""Federations: how often sites send, and what the server makes of it."""

from __future__ import annotations

from optuna.trial import BaseTrial

from ganseg_dist.config import RunConfig
from ganseg_dist.studies.sweeps.space import Space


def federation(trial: BaseTrial, config: RunConfig) -> None:
    """Rounds, and so epochs at home between two of them; the strategy and what it alone is told.

    FedProx's mu goes over the decades in which Li et al. (MLSys 2020) tuned it; eta of FedAdam and FedYogi lies within
    a decade of the default.
    """
    every_second, every_fifth = (max(1, config.train.epochs // apart) for apart in (2, 5))
    trial.suggest_categorical("federation.rounds", list(dict.fromkeys([None, every_second, every_fifth])))
    strategies = ["fedavg", "fedprox", "fedadam", "fedyogi"]
    if config.train.ema is not None:  # which an adaptive server has no place for
        strategies = strategies[:2]
    match trial.suggest_categorical("federation.strategy", strategies):
        case "fedprox":
            trial.suggest_float("federation.proximal_weight", 1e-3, 1, log=True)
        case "fedadam" | "fedyogi":
            trial.suggest_float("federation.server_learning_rate", 1e-3, 1e-1, log=True)


SPACES = (Space("federation", None, federation),)

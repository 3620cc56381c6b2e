"""The rules between epochs and between stages. The owner of a run's state applies them: a trainer, or a federation's
server, which has the state without any data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from ganseg_dist.config import RunConfig
from ganseg_dist.engine.state import Epoch, State
from ganseg_dist.errors import TrainingDiverged
from ganseg_dist.systems.base import Alarm, Stage


def set_learning_rate(state: State, stage: Stage, config: RunConfig) -> None:
    """lr(e) = lr0 * (1 - e / E) ** power for this stage's networks (GANet-Seg, Section 5.4.1)."""
    rate = stage.learning_rate * (1 - state.position.epoch / stage.epochs) ** config.train.learning_rate_power
    for name in stage.networks:
        for group in state.optimizers[name].param_groups:
            group["lr"] = rate


def check_finite(stage: Stage, state: State, scores: Mapping[str, float]) -> None:
    """Raises TrainingDiverged where a weight or a score is NaN or infinite, before a checkpoint keeps it."""
    epoch = f"stage {stage.name}, epoch {state.position.epoch}"
    for name in stage.networks:
        for key, value in state.networks[name].state_dict().items():
            if not torch.isfinite(value).all():
                raise TrainingDiverged(f"{epoch}: {name}.{key} became NaN or infinite; lower train.learning_rate")
    for name, score in scores.items():
        if not math.isfinite(score):
            raise TrainingDiverged(f"{epoch}: the score {name} became {score}; lower train.learning_rate")


def finish_epoch(
    state: State, stage: Stage, losses: Mapping[str, float], scores: Mapping[str, float], *, workers: int = 1
) -> None:
    """Advance the position, record the epoch, remember the best weights, apply the stopping rule."""
    position, monitor = state.position, stage.monitor
    position.history.append(Epoch(stage.name, position.epoch, position.step, workers, dict(losses), dict(scores)))
    value = monitor.value(scores)
    if value is not None and position.epoch >= monitor.since:
        if monitor.better(value, position.best_score):
            position.best_score, position.best_epoch = value, position.epoch
            state.remember_best(stage.networks)
        stagnant = position.epoch - (position.best_epoch if position.best_epoch is not None else position.epoch)
        position.stopped = monitor.patience is not None and stagnant >= monitor.patience
    position.epoch += 1


def new_alarms(stage: Stage, history: Sequence[Epoch]) -> list[Alarm]:
    """The alarms that the newest epoch of the stage raises and the one before it did not."""
    epochs = [record.scores for record in history if record.stage == stage.name]
    return [alarm for alarm in stage.alarms if alarm.raised_by(epochs) and not alarm.raised_by(epochs[:-1])]


def end_stage(state: State, stage: Stage, config: RunConfig) -> None:
    """Hand on the stage's best (or last) weights and move to the start of the next stage."""
    position = state.position
    if config.train.keep == "best" and state.best:
        state.restore_best()
    else:  # configured, or nothing was validated
        state.best = {}
        for name in stage.networks:
            if name in state.ema:
                state.networks[name].load_state_dict(state.ema[name].module.state_dict())
    position.stage += 1
    position.epoch, position.stopped = 0, False
    position.best_score = position.best_epoch = None

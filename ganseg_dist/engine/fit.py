"""The one training loop. Local processes, Ray workers, Tune trials and hospital clients all call `fit`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ganseg_dist.config import RunConfig
from ganseg_dist.data.augment import augment
from ganseg_dist.data.batch import Batch
from ganseg_dist.data.slices import SliceSet
from ganseg_dist.engine.checkpoint import Checkpoints, load_checkpoint, save_checkpoint
from ganseg_dist.engine.loader import StageBatches
from ganseg_dist.engine.patient_privacy import PatientBatches, PatientPrivacy
from ganseg_dist.engine.state import State
from ganseg_dist.engine.tracker import Progress, Tracker
from ganseg_dist.engine.validate import mean_over_cases
from ganseg_dist.engine.world import World
from ganseg_dist.errors import TrainingDiverged
from ganseg_dist.systems import build_system
from ganseg_dist.systems.base import Alarm, Phase, Stage, System

EXAMPLES_SHOWN = 4


@dataclass(frozen=True, slots=True)
class StageData:
    """The slices one stage learns from and is judged on."""

    train: SliceSet
    validation: SliceSet


def train(
    system: System,
    data: Mapping[str, StageData],
    config: RunConfig,
    *,
    world: World,
    tracker: Tracker,
    checkpoints: Checkpoints,
) -> State:
    """Every stage of a run, from the newest whole checkpoint or from the start.

    Args:
        system: built after `seeded`, so that its initial weights follow from the seed.
        data: by `Stage.source`.
    """
    state = prepare_state(system, config, world)
    newest = checkpoints.latest(partial(tracker.warn, 0))
    if newest is not None:
        load_checkpoint(newest, state)
    while state.position.stage < len(system.stages):
        stage = system.stages[state.position.stage]
        fit(system, stage, data[stage.source], config, state, world=world, tracker=tracker, checkpoints=checkpoints)
        end_stage(state, stage, config)
        checkpoints.save({}, partial(save_checkpoint, state=state))
    return state


def train_member(
    config: RunConfig, data: Mapping[str, StageData], world: World, tracker: Tracker, checkpoints: Checkpoints
) -> State:
    """One member of a training world: what a local process and every Ray worker run. Seeds, builds and trains.

    Args:
        data: by `Stage.source`.
    """
    seeded(config, world.device)
    return train(build_system(config), data, config, world=world, tracker=tracker, checkpoints=checkpoints)


def seeded(config: RunConfig, device: torch.device | None = None) -> None:
    """Fix the threads and seeds that the same weights depend on. Call it before building the system.

    Args:
        device: where training runs; none is the GPU where there is one. The CPU alone is held to bitwise the same
            weights: on a GPU some operations have no deterministic version.
    """
    torch.set_num_threads(config.train.threads)
    torch.manual_seed(config.seed)
    on_cpu = device.type == "cpu" if device is not None else not torch.cuda.is_available()
    torch.use_deterministic_algorithms(on_cpu)


def prepare_state(system: System, config: RunConfig, world: World) -> State:
    """Networks on the device, rank 0's weights everywhere, fresh optimizers."""
    memory_format = torch.channels_last if _channels_last(world) else torch.contiguous_format
    for network in system.networks.values():
        network.to(world.device)
        network.to(memory_format=memory_format)  # type: ignore[call-overload]
        world.broadcast(network.state_dict().values())
    return State.fresh(system, config, world.device)


def fit(
    system: System,
    stage: Stage,
    data: StageData,
    config: RunConfig,
    state: State,
    *,
    world: World,
    tracker: Tracker,
    checkpoints: Checkpoints,
    until: int | None = None,
) -> None:
    """Train one stage from the state's epoch to its end, or to epoch `until`.

    Epochs are global: a caller that comes back with the same state goes on where it was, and only a caller
    that owns the run ends a stage (`end_stage`).

    Raises TrainingDiverged when a loss, a weight or a score is no longer finite.
    """
    position = state.position
    privacy = PatientPrivacy.of(config, system, data.train, world) if config.train.privacy.on else None
    batches = (
        StageBatches(config, stage, data.train, system.draw, world)
        if privacy is None
        else PatientBatches(config, stage, data.train, system.draw, world, privacy)
    )
    last_epoch = stage.epochs if until is None else min(until, stage.epochs)
    if config.train.proximal_weight:
        state.reset_reference(stage.networks)
    while position.epoch < last_epoch and not position.stopped:
        set_learning_rate(state, stage, config)
        log = StepLog(position.step)
        for index, batch in enumerate(batches.epoch(position.epoch)):
            batch = augment(batch.to(world.device, channels_last=_channels_last(world)))
            for phase in stage.phases:
                if phase.due(position.epoch, index):
                    log.add(index, train_step(system, phase, batch, config, state, world, privacy))
            position.step += 1
            if world.leads:
                scores = position.history[-1]["scores"] if position.history else {}
                tracker.progress(Progress(stage.name, position.epoch, stage.epochs, index + 1, batches.steps, scores))
        losses = log.close(stage.name, position.epoch, world)
        scores = validate(system, stage, data.validation, batches, config, state, world)
        check_finite(stage, state, scores)
        if privacy is not None:
            scores["epsilon"] = privacy.spent(position.stage, position.epoch + 1)
        finish_epoch(state, stage, losses, scores, workers=world.size)
        if world.leads:
            for alarm in new_alarms(stage, position.history):
                tracker.warn(
                    position.step,
                    f"{stage.name} epoch {position.epoch}: {alarm.score} "
                    f"{scores[alarm.score]:.3g} is below {alarm.below:g}: {alarm.says}",
                )
            tracker.steps(log.first_step, log.values)
            tracker.epoch(
                position.step, {f"{stage.name}/{name}": value for name, value in {**losses, **scores}.items()}
            )
            if position.epoch % config.train.examples_every == 0 or position.epoch == stage.epochs:
                show_examples(system, stage, data.validation, batches, config, state, tracker, world)
        checkpoints.save(scores, partial(save_checkpoint, state=state))


def train_step(
    system: System,
    phase: Phase,
    batch: Batch,
    config: RunConfig,
    state: State,
    world: World,
    privacy: PatientPrivacy | None = None,
) -> dict[str, Tensor]:
    """One update of the phase's networks; returns its raw terms and any dynamic weights.

    Args:
        privacy: of the patients; none: the gradient is the batch's own.
    """
    backpropagate = partial(_backpropagate, system, phase, config=config, state=state, world=world)
    if privacy is None:
        logged = backpropagate(batch)
    else:
        parameters = [p for name in phase.trains for p in state.networks[name].parameters()]
        logged = privacy.gradients(batch, parameters, backpropagate)
    for name in phase.trains:
        state.add_proximal_gradient(name, config.train.proximal_weight)
        parameters = [p for p in state.networks[name].parameters() if p.grad is not None]
        world.average([p.grad for p in parameters if p.grad is not None])
        if config.train.clip_norm is not None:
            nn.utils.clip_grad_norm_(parameters, config.train.clip_norm)
        state.optimizers[name].step()
        state.optimizers[name].zero_grad(set_to_none=True)
        if name in state.ema:
            state.ema[name].update_parameters(state.networks[name])
    return logged


def _backpropagate(
    system: System, phase: Phase, batch: Batch, *, config: RunConfig, state: State, world: World
) -> dict[str, Tensor]:
    """Add the gradient of the phase's weighted terms to its networks' parameters."""
    with only_training(state.networks, phase.trains), precision(config, world):
        # A term of weight 0 is off: it has no curve either, and no gradient to balance the others by.
        terms = {name: term for name, term in system.losses(phase.name, batch).items() if phase.weights[name]}
        weights = {name: phase.weights[name] for name in terms}
        logged = {f"{phase.name}/{name}": term.detach() for name, term in terms.items()}
        balance = state.balances.get(phase.name)
        if balance is not None:
            if not balance.norms or state.position.step % config.train.balance_every == 0:
                balance.read(terms, state.networks, world)
            weights = balance.weights(weights)
            logged |= {f"{phase.name}/weight_{name}": torch.tensor(weight) for name, weight in weights.items()}
        total = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
    total.backward()
    return logged


@contextmanager
def only_training(networks: Mapping[str, nn.Module], names: tuple[str, ...]) -> Iterator[None]:
    """These networks train; the others are frozen, yet let gradients through to what is before them."""
    for name, network in networks.items():
        trains = name in names
        network.train(trains)
        network.requires_grad_(trains)
    yield


def set_learning_rate(state: State, stage: Stage, config: RunConfig) -> None:
    """lr(e) = lr0 * (1 - e / E) ** power for this stage's networks (GANet-Seg, Section 5.4.1)."""
    rate = stage.learning_rate * (1 - state.position.epoch / stage.epochs) ** config.train.learning_rate_power
    for name in stage.networks:
        for group in state.optimizers[name].param_groups:
            group["lr"] = rate


def validate(
    system: System,
    stage: Stage,
    slices: SliceSet,
    batches: StageBatches,
    config: RunConfig,
    state: State,
    world: World,
) -> dict[str, float]:
    """The stage's scores on its validation cases; empty where there are none."""
    channels_last = _channels_last(world)
    with judging(system, state), torch.inference_mode(), precision(config, world):
        on_device = (batch.to(world.device, channels_last=channels_last) for batch in batches.validation(slices))
        return mean_over_cases(on_device, partial(system.validate, stage.name), stage.scores, len(slices.cases), world)


@contextmanager
def judging(system: System, state: State) -> Iterator[None]:
    """Networks in evaluation mode, holding their averaged weights where there are any."""
    raw: dict[str, dict[str, Tensor]] = {}
    for name, network in system.networks.items():
        network.eval()
        if name in state.ema:
            raw[name] = {key: value.clone() for key, value in network.state_dict().items()}
            network.load_state_dict(state.ema[name].module.state_dict())
    try:
        yield
    finally:
        for name, weights in raw.items():
            system.networks[name].load_state_dict(weights)


def check_finite(stage: Stage, state: State, scores: Mapping[str, float]) -> None:
    """Raises TrainingDiverged where an epoch's last step left a weight NaN or infinite, or a score is: before a
    checkpoint keeps it.
    """
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
    position.history.append(
        {
            "stage": stage.name,
            "epoch": position.epoch,
            "step": position.step,
            "workers": workers,
            "losses": dict(losses),
            "scores": dict(scores),
        }
    )
    value = monitor.value(scores)
    if value is not None and position.epoch >= monitor.since:
        if monitor.better(value, position.best_score):
            position.best_score, position.best_epoch = value, position.epoch
            state.remember_best(stage.networks)
        stagnant = position.epoch - (position.best_epoch if position.best_epoch is not None else position.epoch)
        position.stopped = monitor.patience is not None and stagnant >= monitor.patience
    position.epoch += 1


def new_alarms(stage: Stage, history: Sequence[Mapping[str, Any]]) -> list[Alarm]:
    """The alarms that the newest epoch of the stage raises and the one before it did not."""
    epochs = [record["scores"] for record in history if record["stage"] == stage.name]
    return [alarm for alarm in stage.alarms if alarm.raised_by(epochs) and not alarm.raised_by(epochs[:-1])]


def end_stage(state: State, stage: Stage, config: RunConfig) -> None:
    """Hand on the stage's best (or last) weights and stand at the start of the next stage."""
    position = state.position
    if config.train.keep == "best" and state.best:
        state.restore_best()
    else:  # asked for, or nothing was validated
        state.best = {}
        for name in stage.networks:
            if name in state.ema:
                state.networks[name].load_state_dict(state.ema[name].module.state_dict())
    position.stage += 1
    position.epoch, position.stopped = 0, False
    position.best_score = position.best_epoch = None


def show_examples(
    system: System,
    stage: Stage,
    slices: SliceSet,
    batches: StageBatches,
    config: RunConfig,
    state: State,
    tracker: Tracker,
    world: World,
) -> None:
    """Send a few validation slices, spread over those with a lesion, to the tracker."""
    lesions = slices.has_lesion.nonzero()[0]
    shown = lesions if len(lesions) or stage.examples == "tumour_free" else np.arange(len(slices))
    if len(shown) == 0 or stage.modalities is not None:
        return
    chosen = shown[torch.linspace(0, len(shown) - 1, min(EXAMPLES_SHOWN, len(shown))).long().numpy()]
    batch = batches.examples(slices, chosen).to(world.device, channels_last=_channels_last(world))
    with judging(system, state), torch.inference_mode(), precision(config, world):
        prediction = system.predict(batch)
    pictures: dict[str, Any] = {"image": batch.image, "regions": batch.regions}
    pictures |= {name: part for name, part in prediction.pictures().items() if part is not None}
    arrays = {name: picture.float().cpu().numpy() for name, picture in pictures.items()}
    tracker.examples(state.position.step, stage.name, arrays, slices.sides_known[chosen])


class StepLog:
    """Per-step values by name, kept on the device so that no step waits for a number to print."""

    def __init__(self, first_step: int) -> None:
        self.first_step = first_step
        self.records: dict[str, dict[int, Tensor]] = {}
        self.values: dict[str, list[float]] = {}

    def add(self, index: int, values: Mapping[str, Tensor]) -> None:
        """The values of one phase's step at this batch."""
        for name, value in values.items():
            self.records.setdefault(name, {})[index] = value

    def close(self, stage: str, epoch: int, world: World) -> dict[str, float]:
        """Average over the ranks, fill `values`, and return each name's mean over the epoch.

        Raises TrainingDiverged naming the first term that is not finite.
        """
        means: dict[str, float] = {}
        length = 1 + max((max(steps) for steps in self.records.values()), default=-1)
        for name, steps in self.records.items():
            values = torch.stack([value.float().to(world.device) for value in steps.values()])
            world.average([values])
            series = [math.nan] * length
            for index, value in zip(steps, values.tolist(), strict=True):
                series[index] = value
                if not math.isfinite(value):
                    raise TrainingDiverged(
                        f"stage {stage}, epoch {epoch}: the loss {name} became {value}; "
                        "lower train.learning_rate or that term's weight"
                    )
            self.values[name] = series
            means[name] = values.mean().item()
        return means


def precision(config: RunConfig, world: World) -> torch.autocast:
    """bf16 autocast where the config asks for it, and by default on a GPU."""
    wanted = config.train.precision
    enabled = wanted == "bf16" or (wanted == "auto" and world.device.type == "cuda")
    return torch.autocast(world.device.type, dtype=torch.bfloat16, enabled=enabled)


def _channels_last(world: World) -> bool:
    """Channels-last pays on a GPU and costs on a CPU."""
    return world.device.type == "cuda"

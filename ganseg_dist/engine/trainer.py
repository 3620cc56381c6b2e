"""The training loop. Local processes, Ray workers, Tune trials and hospital clients all train with a `Trainer`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch

from ganseg_dist.config import RunConfig
from ganseg_dist.data.augment import augment
from ganseg_dist.data.batch import Batch
from ganseg_dist.data.slices import SliceSet
from ganseg_dist.engine.checkpoint import Checkpoints, load_checkpoint, save_checkpoint
from ganseg_dist.engine.epochs import check_finite, end_stage, finish_epoch, new_alarms, set_learning_rate
from ganseg_dist.engine.loader import StageBatches
from ganseg_dist.engine.patient_privacy import PatientBatches, PatientPrivacy
from ganseg_dist.engine.state import State
from ganseg_dist.engine.step import StepLog, precision, train_step
from ganseg_dist.engine.tracker import Progress, Tracker
from ganseg_dist.engine.validate import evaluation_mode, mean_over_cases
from ganseg_dist.engine.world import World
from ganseg_dist.sampling import evenly_spaced
from ganseg_dist.systems import build_system
from ganseg_dist.systems.base import Stage, System

EXAMPLES_SHOWN = 4


@dataclass(frozen=True, slots=True)
class StageData:
    """The slices one stage is trained on and validated on."""

    train: SliceSet
    validation: SliceSet


def train_member(
    config: RunConfig, data: Mapping[str, StageData], world: World, tracker: Tracker, checkpoints: Checkpoints
) -> State:
    """Seed, build and train as one member of a world: a local process or a Ray worker. `data` is by `Stage.source`."""
    seeded(config, world.device)
    return train(build_system(config), data, config, world=world, tracker=tracker, checkpoints=checkpoints)


def train(
    system: System,
    data: Mapping[str, StageData],
    config: RunConfig,
    *,
    world: World,
    tracker: Tracker,
    checkpoints: Checkpoints,
) -> State:
    """Every stage of a run, from the newest whole checkpoint or from the start; `data` is by `Stage.source`.

    The system is built after `seeded`, so that its initial weights follow from the seed.
    """
    state = prepare_state(system, config, world)
    newest = checkpoints.latest(partial(tracker.warn, 0))
    if newest is not None:
        load_checkpoint(newest, state)
    while state.position.stage < len(system.stages):
        stage = system.stages[state.position.stage]
        Trainer(system, stage, data[stage.source], config, state, world, tracker, checkpoints).fit()
        end_stage(state, stage, config)
        checkpoints.save({}, partial(save_checkpoint, state=state))
    return state


def seeded(config: RunConfig, device: torch.device | None = None) -> None:
    """Fix the threads and seeds that the same weights depend on. Call it before building the system.

    Without a device, training runs on the GPU where there is one. Weights are bitwise reproducible on the CPU alone: on
    a GPU some operations have no deterministic version.
    """
    torch.set_num_threads(config.train.threads)
    torch.manual_seed(config.seed)
    on_cpu = device.type == "cpu" if device is not None else not torch.cuda.is_available()
    torch.use_deterministic_algorithms(on_cpu)


def prepare_state(system: System, config: RunConfig, world: World) -> State:
    """Networks on the device, rank 0's weights everywhere, fresh optimizers."""
    memory_format = torch.channels_last if channels_last(world) else torch.contiguous_format
    for network in system.networks.values():
        network.to(world.device)
        network.to(memory_format=memory_format)  # type: ignore[call-overload]
        world.broadcast(network.state_dict().values())
    return State.fresh(system, config, world.device)


@dataclass
class Trainer:
    """Trains one stage of a system: an epoch is its steps, its validation, its record and its checkpoint.

    Epochs are global: a trainer that is made again with the same state resumes where the last one was, and only a
    caller that owns the run ends the stage (`end_stage`).
    """

    system: System
    stage: Stage
    data: StageData
    config: RunConfig
    state: State
    world: World = field(default_factory=World)
    tracker: Tracker = field(default_factory=Tracker)
    checkpoints: Checkpoints = field(default_factory=Checkpoints)

    @cached_property
    def privacy(self) -> PatientPrivacy | None:
        """The guarantee to the patients; None where there is none."""
        if not self.config.train.privacy.on:
            return None
        return PatientPrivacy.of(self.config, self.system, self.data.train, self.world)

    @cached_property
    def batches(self) -> StageBatches:
        """This rank's share. Raises DataError where the stage has no training examples."""
        of_stage = (self.config, self.stage, self.data.train, self.system.sample, self.world)
        # Under differential privacy the drawn patients must not follow from the seed, which is public.
        return StageBatches(*of_stage) if self.privacy is None else PatientBatches(*of_stage, self.privacy)

    def fit(self, until: int | None = None) -> None:
        """Train from the state's epoch to the stage's end, to where its monitor stops it, or to epoch `until`.

        Raises TrainingDiverged when a loss, a weight or a score is no longer finite.
        """
        position = self.state.position
        last = self.stage.epochs if until is None else min(until, self.stage.epochs)
        if self.config.train.proximal_weight:
            # The proximal term pulls towards the weights at the start of this call: in a round, the server's.
            self.state.reset_reference(self.stage.networks)
        while position.epoch < last and not position.stopped:
            # From the epoch alone, so that a resumed run and a federation's round step as an uninterrupted run does.
            set_learning_rate(self.state, self.stage, self.config)
            log = self._steps()
            losses = log.close(self.stage.name, position.epoch, self.world)
            scores = self.validate()
            # Before anything is recorded: a diverged epoch must not become the newest checkpoint.
            check_finite(self.stage, self.state, scores)
            if self.privacy is not None:
                scores["epsilon"] = self.privacy.spent(position.stage, position.epoch + 1)
            finish_epoch(self.state, self.stage, losses, scores, workers=self.world.size)
            if self.world.leads:
                self._report(log, losses, scores)
            # Last, so that a run killed anywhere above repeats the whole epoch and reaches the same weights.
            self.checkpoints.save(scores, partial(save_checkpoint, state=self.state))

    def validate(self, *, fewest_patients: int = 1) -> dict[str, float]:
        """The stage's scores on its validation cases, of the averaged weights where there are any; {} without cases.

        Scores in which cases of fewer patients count are left out.
        """
        slices = self.data.validation
        with evaluation_mode(self.system, self.state), torch.inference_mode(), precision(self.config, self.world):
            batches = (self._on_device(batch) for batch in self.batches.validation(slices))
            score = partial(self.system.validate, self.stage.name)
            patients = [case.patient for case in slices.cases]
            return mean_over_cases(
                batches, score, self.stage.scores, patients, self.world, fewest_patients=fewest_patients
            )

    def _steps(self) -> StepLog:
        """Every batch of the epoch through every phase that is due: a discriminator before its generator, as listed."""
        position = self.state.position
        log = StepLog(position.step)
        for index, batch in enumerate(self.batches.epoch(position.epoch)):
            # Augmented on the device, by parameters that were drawn for each example when it was loaded.
            batch = augment(self._on_device(batch))
            for phase in self.stage.phases:
                if phase.due(position.epoch, index):
                    step = train_step(self.system, phase, batch, self.config, self.state, self.world, self.privacy)
                    log.add(index, step)
            position.step += 1
            if self.world.leads:
                scores = position.history[-1].scores if position.history else {}
                self.tracker.progress(
                    Progress(self.stage.name, position.epoch, self.stage.epochs, index + 1, self.batches.steps, scores)
                )
        return log

    def _report(self, log: StepLog, losses: Mapping[str, float], scores: Mapping[str, float]) -> None:
        """The finished epoch to the tracker: new alarms, every step's values, the means and, now and then, pictures."""
        position, name = self.state.position, self.stage.name
        for alarm in new_alarms(self.stage, position.history):
            self.tracker.warn(
                position.step,
                f"{name} epoch {position.epoch}: {alarm.score} {scores[alarm.score]:.3g} is below {alarm.below:g}: "
                f"{alarm.message}",
            )
        self.tracker.steps(log.first_step, log.values)
        self.tracker.epoch(position.step, {f"{name}/{key}": value for key, value in {**losses, **scores}.items()})
        if position.epoch % self.config.train.examples_every == 0 or position.epoch == self.stage.epochs:
            self._show_examples()

    def _show_examples(self) -> None:
        """Send a few validation slices, spread over those with a lesion, to the tracker."""
        slices = self.data.validation
        lesions = slices.has_lesion.nonzero()[0]
        candidates = lesions if len(lesions) or self.stage.examples == "tumour_free" else np.arange(len(slices))
        if len(candidates) == 0 or self.stage.modalities is not None:
            return
        chosen = candidates[evenly_spaced(len(candidates), EXAMPLES_SHOWN)]
        batch = self._on_device(self.batches.examples(slices, chosen))
        with evaluation_mode(self.system, self.state), torch.inference_mode(), precision(self.config, self.world):
            prediction = self.system.predict(batch)
        pictures: dict[str, Any] = {"image": batch.image, "regions": batch.regions}
        pictures |= {name: part for name, part in prediction.pictures().items() if part is not None}
        arrays = {name: picture.float().cpu().numpy() for name, picture in pictures.items()}
        self.tracker.examples(self.state.position.step, self.stage.name, arrays, slices.sides_known[chosen])

    def _on_device(self, batch: Batch) -> Batch:
        return batch.to(self.world.device, channels_last=channels_last(self.world))


def channels_last(world: World) -> bool:
    """Whether tensors are stored channels last: it pays on a GPU and costs on a CPU."""
    return world.device.type == "cuda"

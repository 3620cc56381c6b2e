"""The engine, epoch by epoch and without checkpoints, for the benchmarks of training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from ganseg_dist.config import RunConfig
from ganseg_dist.data.augment import augment
from ganseg_dist.data.batch import Batch
from ganseg_dist.engine.state import State
from ganseg_dist.engine.tracker import Tracker
from ganseg_dist.engine.trainer import StageData, Trainer, prepare_state
from ganseg_dist.engine.world import World
from ganseg_dist.systems import build_system
from ganseg_dist.systems.base import Phase, Stage, System

ENDLESS = 10_000
"""Epochs of a stage that is only timed; so many that its learning rate hardly falls."""


@dataclass(slots=True)
class Engine:
    """One stage of one system in training."""

    system: System
    stage: Stage
    data: StageData
    config: RunConfig
    state: State
    world: World
    tracker: Tracker = field(default_factory=Tracker)

    @classmethod
    def of(cls, system: System, data: StageData, config: RunConfig, world: World) -> Engine:
        """The system's last stage, unchanged."""
        return cls(system, system.stages[-1], data, config, prepare_state(system, config, world), world)

    @classmethod
    def of_phase(cls, stage: Stage, phase: Phase, data: StageData, config: RunConfig, world: World) -> Engine:
        """A new system that runs this phase alone, on every batch."""
        engine = cls.of(build_system(config), data, config, world)
        engine.stage = replace(stage, phases=(replace(phase, every=1, epochs=None),), epochs=ENDLESS)
        return engine

    def epoch(self) -> None:
        """Train the next epoch, and validate where there are validation slices."""
        self._trainer().fit(self.state.position.epoch + 1)

    def batches(self) -> Iterator[Batch]:
        """The next epoch's batches, augmented and on the device."""
        for batch in self._trainer().batches.epoch(self.state.position.epoch):
            yield augment(batch.to(self.world.device, channels_last=self.world.device.type == "cuda"))

    def scores(self) -> dict[str, float]:
        """Scores of the current weights on the validation slices."""
        return self._trainer().validate()

    def _trainer(self) -> Trainer:
        return Trainer(self.system, self.stage, self.data, self.config, self.state, self.world, self.tracker)

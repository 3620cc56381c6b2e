"""A hospital's end, without Flower: its data, its own networks and optimizers, and the engine's `fit`."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file, save_file

from ganseg_dist.atomic import save_new
from ganseg_dist.config import RunConfig
from ganseg_dist.data.labels import LabelScheme
from ganseg_dist.data.slices import SliceSet
from ganseg_dist.engine.checkpoint import (
    KEPT,
    FolderCheckpoints,
    NoCheckpoints,
    load_checkpoint,
    read_position,
    save_checkpoint,
)
from ganseg_dist.engine.fit import StageData, end_stage, fit, prepare_state, seeded, validate
from ganseg_dist.engine.loader import StageBatches
from ganseg_dist.engine.state import State
from ganseg_dist.engine.tracker import NullTracker
from ganseg_dist.engine.world import World
from ganseg_dist.errors import FederationError, RunError
from ganseg_dist.federation.encoding import encode
from ganseg_dist.federation.privacy import Releases, Terms, keeps_numbers_home, private_update
from ganseg_dist.federation.round_instruction import RoundInstruction, Scores
from ganseg_dist.federation.schedule import rounds_of
from ganseg_dist.federation.shared_parameters import Arrays, SharedParameters
from ganseg_dist.inference.model_folder import Thresholds, write_model
from ganseg_dist.planning.plan import Prepared
from ganseg_dist.systems import build_system
from ganseg_dist.systems.base import Stage, System

RESIDUAL = "residual.safetensors"
"""What a coarse encoding has not sent yet, beside the engine's files in a checkpoint."""

logger = logging.getLogger(__name__)

NOTHING_TOLD = Scores(1.0, {})
"""Of a site whose numbers stay at home."""


@dataclass(frozen=True, slots=True)
class RoundContext:
    """What a site has when it begins what an instruction asks."""

    system: System
    stage: Stage
    state: State
    shared: SharedParameters
    residual: Arrays
    """What its last message of this stage lost."""


@dataclass(slots=True)
class Site:
    """One hospital in one federation. Everything that lasts is in its folder, so that any process can go on."""

    folder: Path
    """The site's own: checkpoints of its networks, optimizers and position."""
    prepared: Prepared
    world: World = field(default_factory=World)

    def train(self, instruction: RoundInstruction, received: Arrays) -> tuple[Arrays, Scores]:
        """The round's epochs from the server's weights; the site's new weights, and its losses.

        Asked for the same round again, whether its server or the site itself had died, it answers the same.
        """
        config = instruction.settings
        releases = self._releases(config)
        if releases is not None and (told := releases.of(instruction.round)) is not None:
            return told, NOTHING_TOLD
        at = self._at(instruction, received)
        data = self.prepared.open(config)[at.stage.source]
        losses = LastLosses()
        fit(
            at.system,
            at.stage,
            StageData(data.train, _nothing(data)),  # the average is scored, not what goes into it
            config,
            at.state,
            world=self.world,
            tracker=losses,
            checkpoints=NoCheckpoints(),
            until=instruction.until,
        )
        trained = at.shared.trained(at.system, instruction.stage).take(at.state)
        if releases is not None and releases.terms is not None:
            trained = private_update(received, trained, releases.terms)
        message, residual = encode(
            trained,
            received,
            at.residual,
            encoding=config.federation.encoding,
            kept_share=config.federation.kept_share,
        )
        self._states.save({}, partial(_save, state=at.state, residual=residual))
        if releases is not None:
            message = dict(releases.once(instruction.round, lambda: message))
        if keeps_numbers_home(config):
            return message, NOTHING_TOLD
        return message, Scores(_examples(config, data.train), losses.values)

    def evaluate(self, instruction: RoundInstruction, received: Arrays) -> Scores:
        """Validation scores of the server's weights on this site's validation cases."""
        config = instruction.settings
        if keeps_numbers_home(config):
            raise FederationError(
                "instruction: asks for scores, which stay at home with federation.privacy or train.privacy"
            )
        at = self._at(instruction, received)
        data = self.prepared.open(config)[at.stage.source]
        batches = StageBatches(config, at.stage, data.train, at.system.draw, self.world)
        scores = validate(at.system, at.stage, data.validation, batches, config, at.state, self.world)
        return Scores(len(data.validation.cases), scores)

    def finish(self, instruction: RoundInstruction, received: Arrays, learnt_from: Mapping[str, Any]) -> None:
        """End the last stage as a run at home does, and keep a model: the server's weights with the site's own.

        Args:
            learnt_from: the site's data.json.
        """
        state = self._at(instruction, received).state
        self._states.save({}, partial(_save, state=state, residual={}))
        told = {name: learnt_from[name] for name in ("phantom", "synthetic", "channels")}
        facts = {"run": instruction.run, "federated": True, **told}
        what = "This site's model of a federation: the shared weights with the site's own networks."
        card = f"# {instruction.run}\n\n{what}\n"
        weights = self._states.last() / "networks.safetensors"
        scheme = LabelScheme.of_model(
            learnt_from["labels"], instruction.settings.data.regions or (), "data.json: labels"
        )
        folder = self.folder / "model"
        write_model(folder, instruction.settings, weights, scheme, card=card, facts=facts, thresholds=Thresholds())

    @property
    def checkpoints(self) -> Path:
        """Where its state between rounds is."""
        return self.folder / "checkpoints"

    @property
    def _states(self) -> FolderCheckpoints:
        """One more than the server keeps: it may ask again for the round before the one that it was killed in."""
        return FolderCheckpoints(self.checkpoints, kept=KEPT + 1)

    def _releases(self, config: RunConfig) -> Releases | None:
        """What left under a promise that this site itself keeps; none where it keeps none."""
        asked = config.federation.privacy
        by_noise = asked.on and asked.where == "site"
        if not by_noise and not config.train.privacy.on:
            return None
        return Releases.open(self.folder / "privacy", Terms.of(asked, rounds_of(config)) if by_noise else None)

    def _at(self, instruction: RoundInstruction, received: Arrays) -> RoundContext:
        """The site as it was before the instruction, with the server's weights in place of its own."""
        config = instruction.settings
        seeded(config, self.world.device)
        system = build_system(config)
        if instruction.stage > len(system.stages):
            raise FederationError(
                f"instruction: asks for stage {instruction.stage} and {config.recipe} has {len(system.stages)}"
            )
        state = prepare_state(system, config, self.world)
        residual: Arrays = {}
        newest = self._before(instruction, len(system.stages))
        if newest is not None:
            load_checkpoint(newest, state)
            residual = load_file(newest / RESIDUAL)
        position = state.position
        if position.stage < instruction.stage:
            residual = {}
        if instruction.best and position.epoch:
            state.remember_best(system.stages[position.stage].networks)
        while position.stage < instruction.stage:
            end_stage(state, system.stages[position.stage], config)
        position.epoch = instruction.first
        # After the last stage everything has been trained.
        stage = min(instruction.stage, len(system.stages) - 1)
        shared = SharedParameters.of(state, system, config, stage)
        shared.check(received)
        shared.put(received, state, mix=True)
        return RoundContext(system, system.stages[stage], state, shared, residual)

    def _before(self, instruction: RoundInstruction, stages: int) -> Path | None:
        """The newest whole checkpoint of before this instruction. Those of this one or later are dropped.

        Where a newer one is damaged, the site goes on as one that missed a round. Raises RunError when all are damaged.
        """
        for folder in self._states.all():
            with suppress(RunError):  # of a damaged one
                position = read_position(folder)
                if position.stage >= stages or (position.stage, position.epoch) > (
                    instruction.stage,
                    instruction.first,
                ):
                    shutil.rmtree(folder)
        return self._states.latest(logger.warning)


def _save(folder: Path, *, state: State, residual: Arrays) -> None:
    save_new(folder / RESIDUAL, partial(save_file, dict(residual)))
    save_checkpoint(folder, state)


class LastLosses(NullTracker):
    """Remembers the last epoch's losses."""

    def __init__(self) -> None:
        self.values: Mapping[str, float] = {}

    def epoch(self, step: int, scores: Mapping[str, float]) -> None:
        """The next epoch's replace them."""
        self.values = dict(scores)


def _examples(config: RunConfig, slices: SliceSet) -> float:
    """What the site's update counts by."""
    return float(len(slices.cases) if config.federation.weighting == "cases" else len(slices))


def _nothing(data: StageData) -> SliceSet:
    return SliceSet.open((), data.train.modalities, data.train.regions)

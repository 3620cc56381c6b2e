"""A hospital's end, without Flower: its data, networks and optimizers, and the engine's `Trainer`."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from safetensors.numpy import load_file, save_file

from ganseg_dist.atomic import save_new
from ganseg_dist.config import RunConfig
from ganseg_dist.data.record import DataRecord
from ganseg_dist.data.slices import SliceSet
from ganseg_dist.engine.checkpoint import KEPT, FolderCheckpoints, load_checkpoint, read_position, save_checkpoint
from ganseg_dist.engine.epochs import end_stage
from ganseg_dist.engine.state import State
from ganseg_dist.engine.tracker import Tracker
from ganseg_dist.engine.trainer import StageData, Trainer, prepare_state, seeded
from ganseg_dist.engine.world import World
from ganseg_dist.errors import FederationError, RunError, TrainingDiverged
from ganseg_dist.federation.encoding import encode
from ganseg_dist.federation.policy import SitePolicy
from ganseg_dist.federation.privacy import Allowance, Releases, Terms, private_update, withholds_scores
from ganseg_dist.federation.protocol import NO_SCORES, RoundInstruction, Scores
from ganseg_dist.federation.replies import loss_names
from ganseg_dist.federation.schedule import rounds_of
from ganseg_dist.federation.shared_parameters import Arrays, SharedParameters
from ganseg_dist.inference.model_folder import Thresholds, write_model
from ganseg_dist.planning.prepare import Prepared
from ganseg_dist.systems import build_system
from ganseg_dist.systems.base import Stage, System

RESIDUAL = "residual.safetensors"
"""File in a checkpoint, beside the engine's: what coarse encodings have not sent yet (error feedback)."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RoundContext:
    """State and settings with which a site executes one instruction."""

    system: System
    stage: Stage
    state: State
    shared: SharedParameters
    residual: Arrays
    """The loss of its last encoded message of this stage."""


@dataclass(slots=True)
class Site:
    """One hospital in one federation. All its state lies in its folder, so that any process can resume it."""

    folder: Path
    """Holds checkpoints of its networks, optimizers and position."""
    prepared: Prepared
    policy: SitePolicy
    world: World = field(default_factory=World)
    allowance: Allowance | None = None
    """What the hospital still permits to be released with its own noise; None: its policy demands no privacy."""

    def train(self, instruction: RoundInstruction, received: Arrays) -> tuple[Arrays, Scores]:
        """Train the round's epochs from the server's weights; returns the site's encoded weights and its losses.

        Repeating a round, after the server or the site itself died, gives the same result.
        """
        config = instruction.settings
        releases = self._releases(config)
        if releases is not None and (released := releases.of(instruction.round)) is not None:
            return released, NO_SCORES
        context = self._round_context(instruction, received)
        self._delete_checkpoints_after(instruction, len(context.system.stages))
        data = self.prepared.open(config)[context.stage.source]
        losses = LastLosses()
        terms = None if releases is None else releases.terms
        no_slices = SliceSet.open((), data.train.modalities, data.train.regions)
        scored_later = StageData(data.train, no_slices)  # only the average is scored, by `evaluate`
        trainer = Trainer(context.system, context.stage, scored_later, config, context.state, self.world, losses)
        part = context.shared.trained(context.system, instruction.stage)
        diverged = False
        try:
            trainer.fit(instruction.until)
        except TrainingDiverged as error:
            if terms is None:
                raise
            # Whether training fails depends on the patients, so that must not leave without noise either.
            logger.warning("warning: %s; the site sends noise alone", error)
            diverged = True
        trained = {name: received[name] for name in part.shapes} if diverged else part.take(context.state)
        if terms is not None:
            trained = private_update(received, trained, terms)
        message, residual = encode(trained, received, context.residual, config.federation)
        if not diverged:
            self._states.save({}, partial(_save, state=context.state, residual=residual))
        if releases is not None:
            message = dict(releases.once(instruction.round, lambda: message))
        if withholds_scores(config) or self._is_small_group(data.train):
            return message, NO_SCORES
        values = losses.of_patients(trainer, self.policy.minimum_group)
        return message, Scores(_examples(config, data.train), values)

    def evaluate(self, instruction: RoundInstruction, received: Arrays) -> Scores:
        """Validation scores of the server's weights on this site's validation cases.

        Only those that at least `minimum_group` patients count in; the site sends no number where there is none.
        """
        config = instruction.settings
        if withholds_scores(config):
            raise FederationError(
                "instruction: requests scores, which do not leave the site with federation.privacy or train.privacy"
            )
        context = self._round_context(instruction, received)
        data = self.prepared.open(config)[context.stage.source]
        trainer = Trainer(context.system, context.stage, data, config, context.state, self.world)
        scores = trainer.validate(fewest_patients=self.policy.minimum_group)
        return Scores(len(data.validation.cases), scores) if scores else NO_SCORES

    def finish(self, instruction: RoundInstruction, received: Arrays, data_record: DataRecord) -> None:
        """End the last stage as a local run does; store a model of the server's weights and the site's own networks."""
        context = self._round_context(instruction, received)
        self._delete_checkpoints_after(instruction, len(context.system.stages))
        self._states.save({}, partial(_save, state=context.state, residual={}))
        origin = data_record.model_dump(include={"phantom", "synthetic", "channels"})
        facts = {"run": instruction.run, "federated": True, **origin}
        summary = "This site's model of a federation: the shared weights with the site's own networks."
        card = f"# {instruction.run}\n\n{summary}\n"
        weights = self._states.last() / "networks.safetensors"
        scheme = data_record.labels.of_model(instruction.settings.data.regions or (), "data.json: labels")
        folder = self.folder / "model"
        write_model(folder, instruction.settings, weights, scheme, card=card, facts=facts, thresholds=Thresholds())

    @property
    def checkpoints(self) -> Path:
        """Folder of the site's state between rounds."""
        return self.folder / "checkpoints"

    @property
    def _states(self) -> FolderCheckpoints:
        """One checkpoint more than the server keeps: a killed server may repeat the round before its last."""
        return FolderCheckpoints(self.checkpoints, kept=KEPT + 1)

    def noise_multiplier(self, config: RunConfig) -> float | None:
        """The multiplier z of the noise that this site adds to its updates; None where it adds none."""
        terms = _terms_of_site(config)
        return None if terms is None else terms.noise_multiplier

    def _releases(self, config: RunConfig) -> Releases | None:
        """The releases under a guarantee that this site gives (its noise, or DP training); else None."""
        terms = _terms_of_site(config)
        if terms is None and not config.train.privacy.on:
            return None
        return Releases.open(self.folder / "privacy", terms, allowance=self.allowance)

    def _is_small_group(self, slices: SliceSet) -> bool:
        """Whether a number computed from these slices is of too few patients to leave."""
        return len(slices.patients) < self.policy.minimum_group

    def _round_context(self, instruction: RoundInstruction, received: Arrays) -> RoundContext:
        """The site's state of before the instruction, with the shared weights replaced by the server's."""
        config = instruction.settings
        seeded(config, self.world.device)
        system = build_system(config)
        if instruction.stage > len(system.stages):
            raise FederationError(
                f"instruction: requests stage {instruction.stage} and {config.recipe} has {len(system.stages)}"
            )
        state = prepare_state(system, config, self.world)
        residual: Arrays = {}
        newest = self._checkpoint_before(instruction, len(system.stages))
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

    def _checkpoint_before(self, instruction: RoundInstruction, stages: int) -> Path | None:
        """The newest intact checkpoint of before this instruction.

        If a newer one is damaged, the site continues as one that missed a round. Raises RunError if all are damaged.
        """
        before = [folder for folder in self._states.all() if not _is_after(folder, instruction, stages)]
        return self._states.latest_of(before, logger.warning)

    def _delete_checkpoints_after(self, instruction: RoundInstruction, stages: int) -> None:
        """Delete what a repeated round replaces: of the checkpoints, those with the most steps are kept."""
        for folder in self._states.all():
            if _is_after(folder, instruction, stages):
                shutil.rmtree(folder)


def _is_after(folder: Path, instruction: RoundInstruction, stages: int) -> bool:
    """Whether a checkpoint is of after an instruction, as that of a finished run always is; False for a damaged one."""
    with suppress(RunError):
        position = read_position(folder)
        return position.stage >= stages or (position.stage, position.epoch) > (instruction.stage, instruction.first)
    return False


def _terms_of_site(config: RunConfig) -> Terms | None:
    """The terms under which a site adds noise itself; None where it adds none."""
    privacy = config.federation.privacy
    return Terms.of(privacy, rounds_of(config)) if privacy.on and privacy.where == "site" else None


def _save(folder: Path, *, state: State, residual: Arrays) -> None:
    save_new(folder / RESIDUAL, partial(save_file, dict(residual)))
    save_checkpoint(folder, state)


class LastLosses(Tracker):
    """Remembers the last epoch's losses, and on which of its batches each was computed."""

    def __init__(self) -> None:
        self.values: Mapping[str, float] = {}
        self.series: Mapping[str, list[float]] = {}

    def steps(self, first_step: int, values: Mapping[str, list[float]]) -> None:
        """Replace the losses of steps by this epoch's."""
        self.series = values

    def epoch(self, step: int, scores: Mapping[str, float]) -> None:
        """Replace the losses by this epoch's."""
        self.values = dict(scores)

    def of_patients(self, trainer: Trainer, fewest: int) -> dict[str, float]:
        """The losses, as `stage/phase/term`, that were computed of at least so many patients.

        A phase that steps on few batches, or batches of lesion slices alone, may have seen fewer than trained.
        """
        slices, known = trainer.batches.slices, loss_names(trainer.stage)
        drawn = trainer.batches.drawn(trainer.state.position.epoch - 1)
        found = {}
        for name, value in self.values.items():
            series = self.series.get(name.removeprefix(f"{trainer.stage.name}/"), [])
            batches = [drawn[index] for index, loss in enumerate(series) if not math.isnan(loss)]
            seen = {slices.cases[case].patient for batch in batches for case in slices.case_of[batch]}
            if name in known and len(seen) >= fewest:
                found[name] = value
        return found


def _examples(config: RunConfig, slices: SliceSet) -> float:
    """The count by which the server weights this site: cases or slices."""
    return float(len(slices.cases) if config.federation.weighting == "cases" else len(slices))

"""What a site agreed to when it joined a federation; every later instruction is held to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clients.sent import Sent
from ganseg_dist.atomic import write_json
from ganseg_dist.config import RunConfig
from ganseg_dist.config.operational import changed_fields, result_config
from ganseg_dist.digests import damage_as, read_sealed, sealed
from ganseg_dist.engine.checkpoint import KEPT
from ganseg_dist.errors import FederationError, PolicyError, RunError
from ganseg_dist.federation.policy import SitePolicy
from ganseg_dist.federation.protocol import EVALUATE, FINISH, TRAIN, RoundInstruction
from ganseg_dist.federation.schedule import Round, schedule
from ganseg_dist.systems import outline_system

FILE = "joined.json"


@dataclass(frozen=True, slots=True)
class Membership:
    """A site's part in one federation."""

    folder: Path
    """The federation's at the site; holds FILE."""
    policy: SitePolicy
    sent: Sent
    """What has left the site so far."""

    def join(self, run: str, config: RunConfig) -> None:
        """Record the config that the site agrees to. It cannot change once an update has left.

        Raises FederationError naming the first field that did.
        """
        agreed = self._agreed()
        if self.sent.updates.get(run):
            if agreed is None:
                raise RunError(f"{self.folder / FILE}: is missing; restore it, or take part under another run name")
            self._check_same(agreed, config)
        elif agreed != result_config(config):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(self.folder / FILE, sealed({"config": result_config(config).to_json()}))

    def check(self, kind: str, instruction: RoundInstruction) -> None:
        """Raises FederationError for an instruction outside what was agreed on, PolicyError for too many of them.

        A server resumes from one of its KEPT checkpoints. An older round would undo what the site has trained since.
        """
        config, agreed = instruction.settings, self._agreed()
        if agreed is None:
            raise FederationError(f"instruction: is of {instruction.run}, which this site has not joined")
        self._check_same(agreed, config)
        stages = outline_system(config).stages
        _check_scheduled(kind, instruction, schedule(stages, config.federation.rounds), len(stages))
        newest = max(self.sent.updates.get(instruction.run, ()), default=0)
        if kind == TRAIN and instruction.round + KEPT < newest:
            raise FederationError(
                f"instruction: round {instruction.round} is requested again after round {newest} was sent; a server "
                f"repeats none but the last {KEPT + 1}"
            )
        answers = self.sent.answers.get((instruction.run, instruction.round), 0)
        if instruction.round and answers >= self.policy.answers_per_round:
            raise PolicyError(
                f"instruction: round {instruction.round} was answered {answers} times, and the policy permits "
                f"{self.policy.answers_per_round} (policy.answers_per_round)"
            )

    def _agreed(self) -> RunConfig | None:
        """The recorded config; None before joining. Raises RunError where the record is damaged."""
        file = self.folder / FILE
        if not file.exists():
            return None
        with damage_as(RunError, "restore it, or take part under another run name"):
            return RunConfig.from_json(read_sealed(file)["config"], str(file))

    def _check_same(self, agreed: RunConfig, config: RunConfig) -> None:
        changed = changed_fields(agreed, result_config(config))
        if changed:
            raise FederationError(
                f"{changed[0]}: differs from what this site agreed to when it joined; the federation must restore it, "
                "or choose another run name"
            )


def _check_scheduled(kind: str, instruction: RoundInstruction, planned: Sequence[Round], stages: int) -> None:
    """Raises FederationError unless the instruction is one that the schedule has."""
    given = (instruction.round, instruction.stage, instruction.first, instruction.until)
    scheduled = {
        TRAIN: {(part.number, part.stage, part.first, part.until) for part in planned},
        EVALUATE: {(part.number, part.stage, part.until, part.until) for part in planned},
        FINISH: {(part.number, stages, 0, 0) for part in planned},
    }
    if given not in scheduled.get(kind, {(0, 0, 0, 0)}):
        raise FederationError(
            f"instruction: round {given[0]} of stage {given[1]}, epochs {given[2]} to {given[3]}, is not in the "
            f"schedule of {len(planned)} rounds that this site joined"
        )

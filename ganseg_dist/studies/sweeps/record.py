"""What a sweep has come to: its trials, and which is the best."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from ganseg_dist.errors import RunError
from ganseg_dist.runs import Run
from ganseg_dist.studies.sweeps.metric import Metric


def as_set(value: Any) -> str:
    """A field's value as --set takes it."""
    if isinstance(value, list):
        return json.dumps(value)
    return "none" if value is None else str(value)


Ending = Literal["finished", "stopped", "diverged", "abandoned", "failed"]
"""Trained to the end; behind the others; its loss became infinite; its federation could not go on; an error, after
which it is tried again when the sweep is called again.
"""


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """What a trial came to."""

    name: str
    """Of its run, where it trained one."""
    values: Mapping[str, Any]
    """Of the space's fields, at its end."""
    scores: Mapping[str, float]
    """By metric; one is missing where the trial did not come so far."""
    epochs: int
    """Of the last stage."""
    ending: Ending
    reason: str = ""
    seconds: float = 0.0
    curve: Sequence[tuple[int, float]] = field(default_factory=tuple)
    """The first metric after epochs of the last stage, counted from 1, as far as it is scored there."""
    kept: int | None = None
    """The epoch of the last stage, counted from 1, whose weights are kept and whose scores these are."""

    @property
    def number(self) -> str:
        """`003` of the third."""
        return self.name.rpartition(".")[2]

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> TrialRecord:
        """As trials.json says it, whose lists are tuples here.

        Raises KeyError, TypeError or ValueError where it was not written so.
        """
        return cls(**{**said, "curve": tuple((epoch, score) for epoch, score in said["curve"])})


def write_trials(found: Run, trials: Sequence[TrialRecord]) -> None:
    """trials.json, with which a sweep has ended."""
    found.write("trials.json", {"trials": [asdict(trial) for trial in trials]})


def begin_sweep(found: Run, said: Mapping[str, Any]) -> None:
    """Write down what was asked for. Raises as `check_same_study` does."""
    check_same_study(found, said)
    found.write("sweep.json", said)


def check_same_study(found: Run, said: Mapping[str, Any]) -> None:
    """Raises RunError when the name stands for something else than this."""
    if not (found.folder / "sweep.json").exists():
        if found.folder.exists() and any(found.folder.iterdir()):
            raise RunError(f"{found.folder}: is there already and is no sweep; choose another --run-name")
        return
    before = found.read("sweep.json")
    for name, value in json.loads(json.dumps(said)).items():
        if before.get(name) != value:
            raise RunError(f"{found.name}: was begun with another {name}; choose another --run-name")


@dataclass(frozen=True, slots=True)
class Sweep:
    """A sweep that has come to its end."""

    run: Run
    space: str
    metrics: tuple[Metric, ...]
    trials: tuple[TrialRecord, ...]

    @classmethod
    def of(cls, run: Run) -> Sweep:
        """Of its folder. Raises RunError when it has not ended, or its files are not as they were written."""
        said = run.read("sweep.json")
        if not (run.folder / "trials.json").exists():
            raise RunError(f"{run.name}: has not ended; go on with: ganseg tune --resume {run.name}")
        try:
            metrics = tuple(Metric(**metric) for metric in said["metrics"])
            return cls(run, said["space"], metrics, tuple(map(TrialRecord.of, run.read("trials.json")["trials"])))
        except (KeyError, TypeError, ValueError):
            raise RunError(f"{run.folder}: its sweep.json and trials.json cannot be read; restore them") from None

    @property
    def patients(self) -> int:
        """Validation patients, of whom the scores are."""
        said = self.run.read("sweep.json")
        return int(said["patients"]) if "patients" in said else len(said["split"]["validation"])

    @property
    def to_try_again(self) -> tuple[TrialRecord, ...]:
        """Trials that ended by an error, which may be mended by now."""
        return tuple(trial for trial in self.trials if trial.ending == "failed")

    @property
    def goes_on(self) -> str:
        """The command that does what the sweep has found to be best."""
        said = self.run.read("sweep.json")
        if "run" in said:
            return f"ganseg calibrate {said['run']} --from-sweep {self.run.name}"
        request, hospitals = said["request"], said["hospitals"]
        words = ["ganseg", "train" if hospitals is None else "federate", said["config"]["recipe"]]
        options = {
            "--data": request["data"],
            "--layout": request["layout"],
            "--labels": request["labels"],
            **{f"--{k}": v for k, v in (hospitals or {}).items()},
        }
        for option, value in options.items():
            words += [] if value is None else [option, value]
        for field_, value in said["fixed"].items():
            words += ["--set", f"{field_}={as_set(value)}"]
        return shlex.join([*words, "--from-sweep", self.run.name])

    @property
    def scored(self) -> tuple[TrialRecord, ...]:
        """Trials that have every metric."""
        return tuple(
            trial
            for trial in self.trials
            if trial.ending in ("finished", "stopped") and all(metric.name in trial.scores for metric in self.metrics)
        )

    @property
    def best(self) -> TrialRecord:
        """Best in the first metric of those that were trained to the end; of those alike, the earlier.

        A trial that was stopped is the best only where none was finished: it may have been scored before the epochs
        that count, such as those without the adversary.

        Raises RunError when no trial was scored.
        """
        if not self.scored:
            why = next((f": {trial.reason}" for trial in self.trials if trial.reason), "")
            mend = "mend it and start it again" if self.to_try_again else "change the space, under another --run-name"
            raise RunError(f"{self.run.name}: none of its {len(self.trials)} trials came to a score{why}; {mend}")
        return self.ranked[0]

    @property
    def ranked(self) -> tuple[TrialRecord, ...]:
        """Finished trials from the best, then those stopped from the best, then those without a score as they came."""
        first = self.metrics[0]
        sign = -1 if first.mode == "max" else 1
        scored = sorted(self.scored, key=lambda trial: (trial.ending != "finished", sign * trial.scores[first.name]))
        return (*scored, *(trial for trial in self.trials if trial not in scored))

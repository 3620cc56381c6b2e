"""The result of a sweep: its trials, and which is the best."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from ganseg_dist.errors import RunError
from ganseg_dist.runs import Run
from ganseg_dist.studies.sweeps.metric import Metric


def setting_text(value: Any) -> str:
    """A field's value in the syntax of --set."""
    if isinstance(value, list):
        return json.dumps(value)
    return "none" if value is None else str(value)


Ending = Literal["finished", "stopped", "diverged", "abandoned", "failed"]
"""finished: trained to the end. stopped: by the scheduler, behind the others. diverged: its loss became infinite.
abandoned: its federation could not continue. failed: by an error; the trial runs again when the sweep is resumed.
"""


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """The result of one trial."""

    name: str
    """Name of its run, where it trained one."""
    values: Mapping[str, Any]
    """Values of the space's fields at the trial's end."""
    scores: Mapping[str, float]
    """By metric; a metric is missing where the trial ended before it was scored."""
    epochs: int
    """Epochs of the last stage."""
    ending: Ending
    reason: str = ""
    seconds: float = 0.0
    curve: Sequence[tuple[int, float]] = field(default_factory=tuple)
    """(epoch, first metric) for the epochs of the last stage, counted from 1, that score it."""
    kept: int | None = None
    """The epoch of the last stage, counted from 1, whose weights are kept and whose scores are in `scores`."""

    @property
    def number(self) -> str:
        """The last part of the name: `003` for the third trial."""
        return self.name.rpartition(".")[2]

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> TrialRecord:
        """From an entry of trials.json, whose lists become tuples.

        Raises KeyError, TypeError or ValueError where the entry has another form.
        """
        return cls(**{**entry, "curve": tuple((epoch, score) for epoch, score in entry["curve"])})


def write_trials(run: Run, trials: Sequence[TrialRecord]) -> None:
    """Write trials.json, whose presence marks a sweep as ended."""
    run.write("trials.json", {"trials": [asdict(trial) for trial in trials]})


def begin_sweep(run: Run, description: Mapping[str, Any]) -> None:
    """Write sweep.json. Raises RunError as `check_same_study` does."""
    check_same_study(run, description)
    run.write("sweep.json", description)


def check_same_study(run: Run, description: Mapping[str, Any]) -> None:
    """Raises RunError when the run's name belongs to a sweep with another description, or to no sweep."""
    if not (run.folder / "sweep.json").exists():
        if run.folder.exists() and any(run.folder.iterdir()):
            raise RunError(f"{run.folder}: is there already and is no sweep; choose another --run-name")
        return
    before = run.read("sweep.json")
    for name, value in json.loads(json.dumps(description)).items():
        if before.get(name) != value:
            raise RunError(f"{run.name}: was begun with another {name}; choose another --run-name")


@dataclass(frozen=True, slots=True)
class Sweep:
    """A sweep that has ended."""

    run: Run
    space: str
    metrics: tuple[Metric, ...]
    trials: tuple[TrialRecord, ...]

    @classmethod
    def of(cls, run: Run) -> Sweep:
        """Read a sweep from its folder. Raises RunError when it has not ended, or its files are damaged."""
        description = run.read("sweep.json")
        if not (run.folder / "trials.json").exists():
            raise RunError(f"{run.name}: has not ended; go on with: ganseg tune --resume {run.name}")
        try:
            metrics = tuple(Metric(**metric) for metric in description["metrics"])
            return cls(
                run, description["space"], metrics, tuple(map(TrialRecord.of, run.read("trials.json")["trials"]))
            )
        except (KeyError, TypeError, ValueError):
            raise RunError(f"{run.folder}: its sweep.json and trials.json cannot be read; restore them") from None

    @property
    def patients(self) -> int:
        """Number of validation patients that the trials are scored on."""
        description = self.run.read("sweep.json")
        return int(description["patients"]) if "patients" in description else len(description["split"]["validation"])

    @property
    def failed_trials(self) -> tuple[TrialRecord, ...]:
        """Trials that ended by an error, whose cause may be removed by now."""
        return tuple(trial for trial in self.trials if trial.ending == "failed")

    @property
    def next_command(self) -> str:
        """The command that applies the sweep's best values."""
        description = self.run.read("sweep.json")
        if "run" in description:
            return f"ganseg calibrate {description['run']} --from-sweep {self.run.name}"
        request, hospitals = description["request"], description["hospitals"]
        command = ["ganseg", "train" if hospitals is None else "federate", description["config"]["recipe"]]
        options = {
            "--data": request["data"],
            "--layout": request["layout"],
            "--labels": request["labels"],
            **{f"--{k}": v for k, v in (hospitals or {}).items()},
        }
        for option, value in options.items():
            command += [] if value is None else [option, value]
        for field_, value in description["fixed"].items():
            command += ["--set", f"{field_}={setting_text(value)}"]
        return shlex.join([*command, "--from-sweep", self.run.name])

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
        """Best in the first metric of those that were trained to the end; of equal ones, the earlier.

        A trial that was stopped is the best only where none was finished: it may have been scored before the epochs
        that count, such as those without the adversary.

        Raises RunError when no trial was scored.
        """
        if not self.scored:
            why = next((f": {trial.reason}" for trial in self.trials if trial.reason), "")
            mend = "mend it and start it again" if self.failed_trials else "change the space, under another --run-name"
            raise RunError(f"{self.run.name}: none of its {len(self.trials)} trials came to a score{why}; {mend}")
        return self.ranked[0]

    @property
    def ranked(self) -> tuple[TrialRecord, ...]:
        """Finished trials, best first, then stopped ones, best first, then those without a score in their order."""
        first = self.metrics[0]
        sign = -1 if first.mode == "max" else 1
        scored = sorted(self.scored, key=lambda trial: (trial.ending != "finished", sign * trial.scores[first.name]))
        return (*scored, *(trial for trial in self.trials if trial not in scored))

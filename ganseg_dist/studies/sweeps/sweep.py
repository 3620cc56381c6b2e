"""The results of a sweep: its trials, and which is the best."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import Any

from ganseg_dist.errors import RunError
from ganseg_dist.studies.study import Study
from ganseg_dist.studies.sweeps.metric import Metric
from ganseg_dist.studies.trial import TrialResult


def setting_text(value: Any) -> str:
    """A field's value in the syntax of --set."""
    if isinstance(value, list):
        return json.dumps(value)
    return "none" if value is None else str(value)


@dataclass(frozen=True, slots=True)
class Sweep(Study):
    """A sweep that has ended."""

    metrics: tuple[Metric, ...]
    trials: tuple[TrialResult, ...]

    @classmethod
    def of(cls, study: Study) -> Sweep:
        """A sweep with the results in its folder. Raises RunError when it has not ended."""
        results = study.results()
        if len(results) < len(study.trial_names):
            raise RunError(f"{study.name}: has not ended; resume with: ganseg tune --resume {study.name}")
        metrics = tuple(Metric(**metric) for metric in study.request["metrics"])
        return Sweep(study.run, study.request, metrics, tuple(results.values()))

    @property
    def space(self) -> str:
        """Name of the space that was searched."""
        return str(self.request["space"])

    @property
    def patients(self) -> int:
        """Number of validation patients that the trials are scored on."""
        return int(self.request["patients"])

    @property
    def failed_trials(self) -> tuple[TrialResult, ...]:
        """Trials that ended by an error, whose cause may be removed by now."""
        return tuple(trial for trial in self.trials if trial.state == "failed")

    @property
    def next_command(self) -> str:
        """The command that applies the sweep's best values."""
        if "run" in self.request:
            return f"ganseg calibrate {self.request['run']} --from-sweep {self.name}"
        request, hospitals = self.request["request"], self.request["hospitals"]
        command = ["ganseg", "train" if hospitals is None else "federate", self.request["config"]["recipe"]]
        options = {
            "--data": request["data"],
            "--layout": request["layout"],
            "--labels": request["labels"],
            **{f"--{k}": v for k, v in (hospitals or {}).items()},
        }
        for option, value in options.items():
            command += [] if value is None else [option, value]
        for field_, value in self.request["fixed"].items():
            command += ["--set", f"{field_}={setting_text(value)}"]
        return shlex.join([*command, "--from-sweep", self.name])

    @property
    def scored(self) -> tuple[TrialResult, ...]:
        """Trials that have every metric."""
        return tuple(
            trial
            for trial in self.trials
            if trial.state in ("finished", "stopped") and all(metric.name in trial.scores for metric in self.metrics)
        )

    @property
    def best(self) -> TrialResult:
        """Best in the first metric of those that were trained to the end; of equal ones, the earlier.

        A trial that was stopped is the best only where none was finished: it may have been scored before the epochs
        that count, such as those without the adversary.

        Raises RunError when no trial was scored.
        """
        if not self.scored:
            why = next((f": {trial.reason}" for trial in self.trials if trial.reason), "")
            remedy = "fix it and start it again" if self.failed_trials else "change the space, under another --run-name"
            raise RunError(f"{self.name}: none of its {len(self.trials)} trials came to a score{why}; {remedy}")
        return self.ranked[0]

    @property
    def ranked(self) -> tuple[TrialResult, ...]:
        """Finished trials, best first, then stopped ones, best first, then those without a score in their order."""
        first = self.metrics[0]
        sign = -1 if first.mode == "max" else 1
        scored = sorted(self.scored, key=lambda trial: (trial.state != "finished", sign * trial.scores[first.name]))
        return (*scored, *(trial for trial in self.trials if trial not in scored))

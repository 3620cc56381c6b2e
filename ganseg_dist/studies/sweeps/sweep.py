"""The results of a sweep: its trials, the best, the importance of the fields and the Pareto front."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ganseg_dist.errors import RunError
from ganseg_dist.plots.trials import spans_decades
from ganseg_dist.studies.study import Study
from ganseg_dist.studies.sweeps.metric import Metric
from ganseg_dist.studies.trial import TrialResult

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

ENOUGH_FOR_IMPORTANCE = 8
"""Number of scored trials below which importance is noise."""


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
            remedy = "fix it and rerun" if self.failed_trials else "change the space, under another --run-name"
            raise RunError(f"{self.name}: none of its {len(self.trials)} trials has a score{why}; {remedy}")
        return self.ranked[0]

    @property
    def ranked(self) -> tuple[TrialResult, ...]:
        """Finished trials, best first, then stopped ones, best first, then those without a score in their order."""
        first = self.metrics[0]
        sign = -1 if first.mode == "max" else 1
        scored = sorted(self.scored, key=lambda trial: (trial.state != "finished", sign * trial.scores[first.name]))
        return (*scored, *(trial for trial in self.trials if trial not in scored))


def study_of(sweep: Sweep) -> optuna.Study:
    """An Optuna study of the scored trials, in order."""
    import optuna
    from optuna.study import StudyDirection

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    directions = [
        StudyDirection.MAXIMIZE if metric.mode == "max" else StudyDirection.MINIMIZE for metric in sweep.metrics
    ]
    study = optuna.create_study(directions=directions)
    ranges = _ranges(sweep.scored)
    for trial in sweep.scored:
        study.add_trial(
            optuna.trial.create_trial(
                params=dict(trial.values),
                distributions={name: ranges[name] for name in trial.values},
                values=[trial.scores[metric.name] for metric in sweep.metrics],
            )
        )
    return study


def pareto_front(sweep: Sweep) -> tuple[TrialResult, ...]:
    """Trials that no other trial dominates: none is as good in every metric and better in one."""
    front = {trial.number for trial in study_of(sweep).best_trials}
    return tuple(trial for number, trial in enumerate(sweep.scored) if number in front)


def importances(sweep: Sweep) -> Mapping[str, float]:
    """Share of the first metric's variance that each field explains, largest first; empty with too few trials.

    fANOVA of a random forest over the trials (Hutter et al., ICML 2014), of the fields that every trial has.
    """
    import optuna

    if len(sweep.scored) < ENOUGH_FOR_IMPORTANCE:
        return {}
    return dict(
        optuna.importance.get_param_importances(
            study_of(sweep),
            evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0),
            target=lambda trial: trial.values[0],
        )
    )


def _ranges(trials: Sequence[TrialResult]) -> dict[str, BaseDistribution]:
    """The range of the tried values of each field: a study needs one, and the forest sees no other values."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    tried: dict[str, list[Any]] = {}
    for trial in trials:
        for name, value in trial.values.items():
            tried.setdefault(name, []).append(value)
    ranges: dict[str, BaseDistribution] = {}
    for name, values in tried.items():
        if all(type(value) is int for value in values):
            ranges[name] = IntDistribution(min(values), max(values))
        elif all(type(value) in (int, float) for value in values):
            ranges[name] = FloatDistribution(min(values), max(values), log=spans_decades(values))
        else:
            ranges[name] = CategoricalDistribution(tuple(dict.fromkeys(values)))
    return ranges

"""The importance of a sweep's fields and its Pareto front, by Optuna."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ganseg_dist.plots.parallel import spans_decades
from ganseg_dist.studies.sweeps.sweep import Sweep
from ganseg_dist.studies.trial import TrialResult

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.study import Study

ENOUGH_FOR_IMPORTANCE = 8
"""Number of scored trials below which importance is noise."""


def study_of(sweep: Sweep) -> Study:
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

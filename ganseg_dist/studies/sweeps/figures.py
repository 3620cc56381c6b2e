"""Figures of a sweep: learning curves, values against scores, importance of the fields, and the Pareto front."""

from __future__ import annotations

import math

from ganseg_dist.plots import Figure
from ganseg_dist.plots.parallel import parallel_figure
from ganseg_dist.plots.trials import Trial, curve_figure, front_figure, share_figure, value_figure
from ganseg_dist.plural import counted
from ganseg_dist.studies.sweeps.importance import importances, pareto_front
from ganseg_dist.studies.sweeps.metric import Metric
from ganseg_dist.studies.sweeps.sweep import Sweep
from ganseg_dist.studies.trial import TrialResult


def figures(sweep: Sweep) -> dict[str, Figure]:
    """Figures by file name: curves where trials trained, importance with enough trials, a front of several metrics."""
    title = _title(sweep)
    plots = {}
    if any(trial.curve for trial in sweep.trials):
        plots["curves"] = _curves(sweep, title)
    if not any(trial.epochs for trial in sweep.trials):  # a search of thresholds, which every trial sets
        plots["slices"] = value_figure(title, sweep.metrics[0].name, [_trial(sweep, trial) for trial in sweep.scored])
    plots["parallel"] = _parallel(sweep, title)
    shares = importances(sweep)
    if shares:
        label = f"share of the variance of {sweep.metrics[0].name} over {len(sweep.scored)} trials"
        plots["importance"] = share_figure("Which fields matter (fANOVA), of those that every trial has", label, shares)
    if len(sweep.metrics) > 1:
        plots["pareto"] = _pareto(sweep, title)
    return plots


def _trial(sweep: Sweep, trial: TrialResult) -> Trial:
    """What is drawn of a trial, with the first metric as its score."""
    role = "best" if trial == sweep.best else "first" if trial == sweep.trials[0] else ""
    score = trial.scores.get(sweep.metrics[0].name, math.nan)
    return Trial(role, score, trial.values, trial.curve, trial.kept, finished=trial.state == "finished")


def _curves(sweep: Sweep, title: str) -> Figure:
    first, best = sweep.trials[0], sweep.best
    label = f"first trial, {first.number}: published values or the recipe's"
    legend = {"first": label, "best": f"best trial, {best.number}"}
    if best == first:
        legend = {"best": f"{label}; also the best"}
    return curve_figure(title, sweep.metrics[0].name, [_trial(sweep, trial) for trial in sweep.trials], legend)


def _parallel(sweep: Sweep, title: str) -> Figure:
    """An axis per field that varies and per metric."""
    metrics = [metric.name for metric in sweep.metrics]
    rows = [{**trial.values, **{name: trial.scores[name] for name in metrics}} for trial in sweep.scored]
    fields = dict.fromkeys(name for trial in sweep.scored for name in trial.values)
    varying = [name for name in fields if len({str(row[name]) for row in rows if name in row}) > 1]
    sign = 1 if sweep.metrics[0].mode == "max" else -1
    goodness = [sign * row[metrics[0]] for row in rows]
    return parallel_figure(title, varying + metrics, rows, goodness, sweep.scored.index(sweep.best))


def _pareto(sweep: Sweep, title: str) -> Figure:
    """The first two metrics."""
    x, y = sweep.metrics[:2]
    points = {trial.number: (trial.scores[x.name], trial.scores[y.name]) for trial in sweep.scored}
    front = {trial.number: points[trial.number] for trial in pareto_front(sweep)}
    return front_figure(title, (_axis_label(x), _axis_label(y)), list(points.values()), front)


def _axis_label(metric: Metric) -> str:
    return f"{metric.name} ({'higher' if metric.mode == 'max' else 'lower'} is better)"


def _title(sweep: Sweep) -> str:
    patients = counted(sweep.patients, "validation patient")
    return f"{sweep.run.name}: {len(sweep.trials)} trials of space {sweep.space}; {patients}"

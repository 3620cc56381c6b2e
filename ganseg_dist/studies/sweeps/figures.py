"""Figures of a sweep: learning curves, values against scores, importance of the fields, and the Pareto front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ganseg_dist.plural import counted
from ganseg_dist.studies.experiments.figures import COLOURS, DPI, INK, MUTED, RULE, STYLE
from ganseg_dist.studies.sweeps.metric import Metric
from ganseg_dist.studies.sweeps.record import Sweep, TrialRecord
from ganseg_dist.studies.sweeps.study import importances, pareto_front, spans_decades

BEST, FIRST = COLOURS[1], COLOURS[0]
COLOUR_MAP = "viridis_r"
"""Dark is better, as light lines would vanish on white."""


def figures(sweep: Sweep) -> dict[str, Figure]:
    """Figures by file name: curves where trials trained, importance with enough trials, a front of several metrics."""
    with mpl.rc_context(STYLE):
        plots = {"curves": _curves(sweep)} if any(trial.curve for trial in sweep.trials) else {}
        if not any(trial.epochs for trial in sweep.trials):  # a search of thresholds, which every trial sets
            plots["slices"] = _slices(sweep)
        plots["parallel"] = _parallel(sweep)
        shares = importances(sweep)
        if shares:
            plots["importance"] = _importance(sweep, shares)
        if len(sweep.metrics) > 1:
            plots["pareto"] = _pareto(sweep)
    return plots


def _curves(sweep: Sweep) -> Figure:
    """The first metric after each epoch: trials in grey, the first and the best in colour; a dot at the kept epoch."""
    figure = Figure(figsize=(6.4, 3.6), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    first, best = sweep.trials[0], sweep.best
    for trial in sorted(sweep.trials, key=lambda trial: (trial == best, trial == first)):
        if not trial.curve:
            continue
        colour, width = (BEST, 2.0) if trial == best else (FIRST, 1.6) if trial == first else (RULE, 1.0)
        epochs, scores = zip(*trial.curve, strict=True)
        axes.plot(epochs, scores, color=colour, linewidth=width)
        if trial.ending != "finished":
            axes.plot(epochs[-1:], scores[-1:], "x", markersize=5, color=MUTED if colour == RULE else colour)
        elif trial.kept is not None and trial.kept in epochs:
            axes.plot([trial.kept], [scores[epochs.index(trial.kept)]], "o", markersize=5, color=colour)
    label = f"first trial, {first.number}: published values or the recipe's"
    if best == first:
        axes.plot([], [], color=BEST, label=f"{label}; also the best")
    else:
        axes.plot([], [], color=FIRST, label=label)
        axes.plot([], [], color=BEST, label=f"best trial, {best.number}")
    axes.plot([], [], "o", markersize=5, color=MUTED, label="epoch that is kept, whose score counts")
    if any(trial.curve and trial.ending != "finished" for trial in sweep.trials):
        axes.plot([], [], "x", markersize=5, color=MUTED, label="not trained to the end")
    axes.set(xlabel="epoch of the last stage", ylabel=sweep.metrics[0].name)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="best")
    axes.set_title(_title(sweep), loc="left", fontsize=9)
    return figure


def _slices(sweep: Sweep) -> Figure:
    """The first metric over each threshold: a dot per trial, the first and the best in colour."""
    names = list(dict.fromkeys(name for trial in sweep.scored for name in trial.values))
    figure = Figure(figsize=(max(4.2, 2.6 * len(names)), 3.2), dpi=DPI, layout="constrained")
    metric, first, best = sweep.metrics[0].name, sweep.trials[0], sweep.best
    for axes, name in zip(figure.subplots(1, len(names), sharey=True, squeeze=False)[0], names, strict=True):
        for trial in sorted(sweep.scored, key=lambda trial: (trial == best, trial == first)):
            colour, size = (BEST, 6) if trial == best else (FIRST, 6) if trial == first else (MUTED, 3)
            axes.plot([trial.values[name]], [trial.scores[metric]], "o", color=colour, markersize=size)
        axes.set_xlabel(name)
    figure.axes[0].set_ylabel(metric)
    figure.axes[0].set_title(_title(sweep), loc="left", fontsize=9)
    return figure


def _parallel(sweep: Sweep) -> Figure:
    """An axis per field that varies and per metric, a line per trial: darker is better, the best in colour.

    A line has a gap where the trial lacks the field.
    """
    of_metrics = {metric.name for metric in sweep.metrics}
    rows = [{**trial.values, **{name: trial.scores[name] for name in of_metrics}} for trial in sweep.scored]
    fields = dict.fromkeys(name for trial in sweep.scored for name in trial.values)
    names = [name for name in fields if len({str(row[name]) for row in rows if name in row}) > 1]
    names += [metric.name for metric in sweep.metrics]
    metric = sweep.metrics[0]
    figure = Figure(figsize=(max(6.4, 1.25 * len(names)), 4.2), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    scores = np.array([trial.scores[metric.name] for trial in sweep.scored])
    low, high = float(scores.min()), float(scores.max())
    ends = (low, high if high > low else low + 1)
    norm = mpl.colors.Normalize(*(ends if metric.mode == "max" else ends[::-1]))
    colours = mpl.colormaps[COLOUR_MAP]
    scales = [_Scale([row[name] for row in rows if name in row]) for name in names]
    order = np.argsort(scores if metric.mode == "max" else -scores)  # the best lie on top
    for index in order.tolist():
        trial = sweep.scored[index]
        heights = [
            scale.height(rows[index][name]) if name in rows[index] else np.nan
            for name, scale in zip(names, scales, strict=True)
        ]
        is_best = trial == sweep.best
        axes.plot(
            range(len(heights)), heights, color=BEST if is_best else colours(norm(scores[index])),
            linewidth=2.4 if is_best else 1.0, alpha=1.0 if is_best else 0.75, marker="o", markersize=3,
        )  # fmt: skip
    _draw_axes(axes, names, scales)
    axes.set_title(_title(sweep), loc="left", fontsize=9)
    return figure


def _importance(sweep: Sweep, shares: Mapping[str, float]) -> Figure:
    figure = Figure(figsize=(6.4, 1.2 + 0.3 * len(shares)), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    names = list(shares)[::-1]
    axes.barh(names, [shares[name] for name in names], color=FIRST, height=0.6)
    axes.set(xlim=(0, 1), xlabel=f"share of the variance of {sweep.metrics[0].name} over {len(sweep.scored)} trials")
    axes.tick_params(axis="y", length=0)
    axes.set_title("Which fields matter (fANOVA), of those that every trial has", loc="left", fontsize=9)
    return figure


def _pareto(sweep: Sweep) -> Figure:
    """The first two metrics; the trials of the Pareto front are joined by a line."""
    x_metric, y_metric = sweep.metrics[:2]
    figure = Figure(figsize=(5.2, 4.0), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    front = sorted(pareto_front(sweep), key=lambda trial: trial.scores[x_metric.name])
    axes.plot(*_points(sweep.scored, x_metric, y_metric), "o", color=RULE, markersize=5, label="bettered in both")
    axes.plot(
        *_points(front, x_metric, y_metric), "-o", color=BEST, markersize=6, label="not bettered in both: the front"
    )
    for trial in front:
        axes.annotate(
            trial.number, (trial.scores[x_metric.name], trial.scores[y_metric.name]), xytext=(4, 4),
            textcoords="offset points", fontsize=8, color=INK,
        )  # fmt: skip
    axes.set(xlabel=_axis_label(x_metric), ylabel=_axis_label(y_metric))
    axes.legend(loc="best")
    axes.set_title(_title(sweep), loc="left", fontsize=9)
    return figure


class _Scale:
    """One field's axis from 0 to 1: logarithmic where its values span decades, evenly spaced for categories."""

    def __init__(self, values: Sequence[Any]) -> None:
        self.categories = None if all(type(value) in (int, float) for value in values) else list(dict.fromkeys(values))
        numbers = [] if self.categories is not None else [float(value) for value in values]
        self.log = bool(numbers) and spans_decades(numbers)
        ends = [self._number(value) for value in values]
        self.low, self.high = min(ends), max(ends)

    def height(self, value: Any) -> float:
        """Position of a value on the axis, from 0 to 1; 0.5 where all values are equal."""
        return (self._number(value) - self.low) / (self.high - self.low) if self.high > self.low else 0.5

    def marks(self) -> list[tuple[float, str]]:
        """Height and label of both ends of the axis, or of every category."""
        if self.categories is not None:
            return [(self.height(word), "none" if word is None else str(word)) for word in self.categories]
        ends = (self.low, self.high) if self.high > self.low else (self.low,)
        return [(self.height(self._from_number(end)), f"{self._from_number(end):.3g}") for end in ends]

    def _number(self, value: Any) -> float:
        if self.categories is not None:
            return float(self.categories.index(value))
        return float(np.log10(value)) if self.log else float(value)

    def _from_number(self, number: float) -> float:
        return float(10**number) if self.log else number


def _draw_axes(axes: Axes, names: Sequence[str], scales: Sequence[_Scale]) -> None:
    axes.set_xlim(-0.3, len(names) - 0.5)
    axes.set_ylim(-0.08, 1.08)
    for place, scale in enumerate(scales):
        axes.axvline(place, color=MUTED, linewidth=0.8, zorder=0)
        for height, words in scale.marks():
            axes.annotate(
                words, (place, height), xytext=(4, 0), textcoords="offset points", fontsize=7.5, color=INK, va="center",
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 0.8},
            )  # fmt: skip
    axes.set_xticks(range(len(names)), [name.replace(".", ".\n", 1) for name in names], fontsize=7.5)
    axes.tick_params(axis="x", length=0)
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _points(trials: Sequence[TrialRecord], x_metric: Metric, y_metric: Metric) -> tuple[list[float], list[float]]:
    return [trial.scores[x_metric.name] for trial in trials], [trial.scores[y_metric.name] for trial in trials]


def _axis_label(metric: Metric) -> str:
    return f"{metric.name} ({'higher' if metric.mode == 'max' else 'lower'} is better)"


def _title(sweep: Sweep) -> str:
    patients = counted(sweep.patients, "validation patient")
    return f"{sweep.run.name}: {len(sweep.trials)} trials of space {sweep.space}; {patients}"

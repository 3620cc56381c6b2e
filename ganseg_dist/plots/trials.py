"""Trials of a search: curves, values against scores, two scores, parallel coordinates, shares of a variance.

The first and the best trial have a colour each, the others are grey and lie below.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ganseg_dist.plots.style import PAPER, for_paper, panels

FIRST, BEST = PAPER.series[:2]
COLOURS = {"first": FIRST, "best": BEST}

COLOUR_MAP = "viridis_r"
"""Dark is better, as light lines would vanish on white."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial."""

    role: str
    """first, best (also where it is the first as well) or empty."""
    score: float
    values: Mapping[str, Any]
    curve: Sequence[tuple[int, float]] = ()
    """(epoch, score)."""
    kept: int | None = None
    """The epoch whose score counts."""
    finished: bool = True


@for_paper
def curve_figure(title: str, label: str, trials: Sequence[Trial], legend: Mapping[str, str]) -> Figure:
    """The score after each epoch, a dot at the kept epoch, a cross where a trial ended before it was trained."""
    figure, (axes,) = panels(6.4, 3.6)
    for trial in _best_last(trials):
        if trial.curve:
            colour, width = COLOURS.get(trial.role, PAPER.rule), {"first": 1.6, "best": 2.0}.get(trial.role, 1.0)
            epochs, scores = zip(*trial.curve, strict=True)
            axes.plot(epochs, scores, color=colour, linewidth=width)
            if not trial.finished:
                axes.plot(epochs[-1:], scores[-1:], "x", markersize=5, color=COLOURS.get(trial.role, PAPER.muted))
            elif trial.kept is not None and trial.kept in epochs:
                axes.plot([trial.kept], [scores[epochs.index(trial.kept)]], "o", markersize=5, color=colour)
    for role, name in legend.items():
        axes.plot([], [], color=COLOURS[role], label=name)
    axes.plot([], [], "o", markersize=5, color=PAPER.muted, label="epoch that is kept, whose score counts")
    if any(trial.curve and not trial.finished for trial in trials):
        axes.plot([], [], "x", markersize=5, color=PAPER.muted, label="not trained to the end")
    axes.set(xlabel="epoch of the last stage", ylabel=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="best")
    axes.set_title(title)
    return figure


@for_paper
def value_figure(title: str, label: str, trials: Sequence[Trial]) -> Figure:
    """The score over each field's values, a dot per trial; every trial has all fields."""
    names = list(dict.fromkeys(name for trial in trials for name in trial.values))
    figure, fields = panels(max(4.2, 2.6 * len(names)), 3.2, len(names), share_y=True)
    for axes, name in zip(fields, names, strict=True):
        for trial in _best_last(trials):
            colour, size = COLOURS.get(trial.role, PAPER.muted), 6 if trial.role else 3
            axes.plot([trial.values[name]], [trial.score], "o", color=colour, markersize=size)
        axes.set_xlabel(name)
    fields[0].set_ylabel(label)
    fields[0].set_title(title)
    return figure


@for_paper
def front_figure(
    title: str, labels: tuple[str, str], points: Sequence[tuple[float, float]], front: Mapping[str, tuple[float, float]]
) -> Figure:
    """Two scores of every trial; the named trials of the Pareto front are joined by a line, from left to right."""
    figure, (axes,) = panels(5.2, 4.0)
    axes.plot(*zip(*points, strict=True), "o", color=PAPER.rule, markersize=5, label="bettered in both")
    line = sorted(front.values())
    axes.plot(*zip(*line, strict=True), "-o", color=BEST, markersize=6, label="not bettered in both: the front")
    for name, point in front.items():
        axes.annotate(name, point, xytext=(4, 4), textcoords="offset points", fontsize=8)
    axes.set(xlabel=labels[0], ylabel=labels[1])
    axes.legend(loc="best")
    axes.set_title(title)
    return figure


@for_paper
def share_figure(title: str, label: str, shares: Mapping[str, float]) -> Figure:
    """A bar a share, the first on top."""
    figure, (axes,) = panels(6.4, 1.2 + 0.3 * len(shares))
    axes.barh(list(shares), list(shares.values()), color=FIRST, height=0.6)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1), xlabel=label)
    axes.tick_params(axis="y", length=0)
    axes.set_title(title)
    return figure


def _best_last(trials: Sequence[Trial]) -> list[Trial]:
    """The first and the best lie on top."""
    return sorted(trials, key=lambda trial: ["", "first", "best"].index(trial.role))


def spans_decades(values: Sequence[float]) -> bool:
    """Whether all values are positive and span more than one decade, so that a logarithmic axis is better."""
    return min(values) > 0 and max(values) / min(values) > 10


@for_paper
def parallel_figure(
    title: str, names: Sequence[str], rows: Sequence[Mapping[str, Any]], goodness: Sequence[float], best: int
) -> Figure:
    """An axis per name. The higher a row's goodness, the darker its line; the row at index `best` is in colour.

    A line has a gap where it lacks a field; each field is in some row.
    """
    figure, (axes,) = panels(max(6.4, 1.25 * len(names)), 4.2)
    low, high = min(goodness), max(goodness)
    norm = mpl.colors.Normalize(low, high if high > low else low + 1)
    scales = [_Scale([row[name] for row in rows if name in row]) for name in names]
    for index in np.argsort(goodness).tolist():  # the best lie on top
        row = rows[index]
        heights = [
            scale.height(row[name]) if name in row else np.nan for name, scale in zip(names, scales, strict=True)
        ]
        colour, width, alpha = mpl.colormaps[COLOUR_MAP](norm(goodness[index])), 1.0, 0.75
        if index == best:
            colour, width, alpha = PAPER.series[1], 2.4, 1.0
        axes.plot(range(len(names)), heights, color=colour, linewidth=width, alpha=alpha, marker="o", markersize=3)
    _draw_axes(axes, names, scales)
    axes.set_title(title)
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
            return [(self.height(value), "none" if value is None else str(value)) for value in self.categories]
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
        axes.axvline(place, color=PAPER.muted, linewidth=0.8, zorder=0)
        for height, label in scale.marks():
            axes.annotate(
                label, (place, height), xytext=(4, 0), textcoords="offset points", fontsize=7.5, va="center",
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 0.8},
            )  # fmt: skip
    axes.set_xticks(range(len(names)), [name.replace(".", ".\n", 1) for name in names], fontsize=7.5)
    axes.tick_params(axis="x", length=0)
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)

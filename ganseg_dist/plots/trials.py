"""Trials of a search: learning curves, values against scores, two scores against each other, and shares of a variance.

The first and the best trial have a colour each, the others are grey and lie below.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ganseg_dist.plots.style import PAPER, for_paper, panels

FIRST, BEST = PAPER.series[:2]
COLOURS = {"first": FIRST, "best": BEST}


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
    """The score after each epoch, a dot at the kept epoch, a cross where a trial ended before it was trained.

    Args:
        legend: of the roles that occur, in words.
    """
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

"""Rows of values: means with 95% intervals, or a dot a case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ganseg_dist.plots.style import PAGE, for_page, legend_above, legend_rows, named_rows

BAR, GAP = 16.0, 14.0
"""Height of a row in a group, and the gap between groups, in pixels."""
WIDTH = 620.0


@dataclass(frozen=True, slots=True)
class Bar:
    """A mean with its interval, or without one."""

    label: str
    mean: float
    low: float | None = None
    high: float | None = None
    emphasised: bool = False

    @property
    def ends(self) -> list[float]:
        """The interval's ends and the mean, or the mean alone."""
        return [end for end in (self.low, self.mean, self.high) if end is not None]


@for_page
def interval_chart(bars: Sequence[Bar], *, axis: str, limits: tuple[float, float] | None = None) -> Figure:
    """One row a method, the first on top; by default the axis begins at 0."""
    figure, axes = named_rows([bar.label for bar in bars], range(len(bars)), size=(520, 30 * len(bars)))
    for row, bar in enumerate(bars):
        colour = PAGE.accent if bar.emphasised else PAGE.muted
        draw_interval(axes, bar, row, colour, width=2.2 if bar.emphasised else 1.6, size=8 if bar.emphasised else 6)
    for label, bar in zip(axes.get_yticklabels(), bars, strict=True):
        label.set_color(PAGE.ink if bar.emphasised else PAGE.muted)
    ends = [end for bar in bars for end in bar.ends]
    _scores(axes, axis, limits or (min(0.0, *ends), 1.08 * max(*ends, 1e-9)))
    axes.set_ylim(len(bars) - 0.5, -0.5)
    return figure


@for_page
def grouped_chart(groups: Mapping[str, Sequence[Bar]], *, axis: str) -> Figure:
    """Rows in named groups over [0, 1], a colour for each label with the legend above."""
    labels = dict.fromkeys(bar.label for bars in groups.values() for bar in bars)
    colours = {label: PAGE.cycle(index) for index, label in enumerate(labels)}
    tops = [0.0]
    for bars in groups.values():
        tops.append(tops[-1] + BAR * len(bars) + GAP)
    middles = [top + BAR / 2 * (len(bars) - 1) for top, bars in zip(tops, groups.values(), strict=False)]
    figure, axes = named_rows(list(groups), middles, size=(WIDTH, tops[-1]), top=40)
    for top, bars in zip(tops, groups.values(), strict=False):
        for row, bar in enumerate(bars):
            draw_interval(axes, bar, top + BAR * row, colours[bar.label], width=2, size=8 if bar.emphasised else 6)
    for top in tops[1:]:
        axes.axhline(top - 15, color=PAGE.rule, linewidth=0.6)
    axes.set_ylim(tops[-1] - 15, -15)
    _scores(axes, axis, (0.0, 1.0))
    legend_above(axes, legend_rows(list(colours.items()), WIDTH - 32), left=16)
    return figure


def draw_interval(
    axes: Axes, bar: Bar, place: float, colour: str, *, width: float, size: float, upright: bool = False, **style: Any
) -> None:
    """The interval as a line where there is one, and the mean as a dot of this style, in a row or an upright column."""
    ends, mean = [bar.low, bar.high], [bar.mean]
    if bar.low is not None and bar.high is not None:
        axes.plot(*(([place] * 2, ends) if upright else (ends, [place] * 2)), color=colour, linewidth=width)
    axes.plot(*(([place], mean) if upright else (mean, [place])), "o", color=colour, markersize=size, **style)


def _scores(axes: Axes, label: str, limits: tuple[float, float]) -> None:
    """A labelled x-axis with a margin around the limits."""
    margin = 0.02 * (limits[1] - limits[0])
    axes.set(xlim=(limits[0] - margin, limits[1] + margin), xlabel=label)


@for_page
def strip_chart(groups: Mapping[str, Sequence[float]], *, axis: str) -> Figure:
    """One row a group, one dot a case, its median as an upright line; scores in [0, 1]."""
    names = [f"{name} ({len(values)})" for name, values in groups.items()]
    row_height = 34 if len(groups) < 8 else 24
    figure, axes = named_rows(names, range(len(names)), size=(520, row_height * len(names)))
    for row, values in enumerate(groups.values()):
        # Steps of the golden ratio fill the row's height evenly for any number of cases.
        lift = (np.arange(len(values)) * 0.618 % 1 - 0.5) * 0.5
        axes.plot(sorted(values), row + lift, "o", color=PAGE.accent, alpha=0.55, markersize=5, markeredgewidth=0)
        axes.plot([float(np.median(values))] * 2, [row - 0.36, row + 0.36], color=PAGE.ink, linewidth=2)
    axes.set(xlim=(-0.02, 1.02), ylim=(len(names) - 0.5, -0.5), xlabel=axis)
    return figure

"""Estimates with intervals on paper: rows side by side in a panel a score, and arms over amounts of training data.

Axes fit the measured values and span at least `LEAST_SPAN`; a published score, of other images, is a hollow mark, drawn
at the edge of the axis where it lies beyond.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ganseg_dist.plots.intervals import Bar, draw_interval
from ganseg_dist.plots.style import PAPER, bare_rows, for_paper, panels

LEAST_SPAN = 0.1
"""Smallest span of an axis, so that small differences do not look large."""
LABEL_WIDTH = 24
"""Letters per line of a label under a panel."""
GROUP_GAP = 0.6
"""Gap between groups of rows, in rows."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of all panels, or a point over an amount; those of the same label share it."""

    label: str
    group: str
    series: int = 0
    amount: float = 0.0
    minor: bool = False
    """Small and grey: part of another row."""

    @property
    def colour(self) -> str:
        """The colour of the row's marks."""
        return PAPER.muted if self.minor else PAPER.cycle(self.series)


@dataclass(frozen=True, slots=True)
class Panel:
    """A score, or its difference to a reference, of every row."""

    label: str
    bars: Sequence[Bar | None]
    """By row; a row without one is empty. Differences are hollow unless emphasised."""
    published: Sequence[float | None] = ()
    """By row; may be empty."""
    reference: float | None = None
    """Value at a dashed upright line."""
    difference: bool = False
    """Whether 0 is marked and included."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """An entry of the legend."""

    label: str
    colour: int | Literal["ink", "muted"] = 0
    """A series' number, or a colour's name."""
    marker: str = "o"
    line: bool = True
    hollow: bool = False
    size: float = 6.0

    @property
    def handle(self) -> Line2D:
        """The mark beside the label."""
        names = {"ink": PAPER.ink, "muted": PAPER.muted}
        colour = names[self.colour] if isinstance(self.colour, str) else PAPER.cycle(self.colour)
        return Line2D(
            [], [], color=colour, marker=self.marker, linestyle="-" if self.line else "", label=self.label,
            markerfacecolor="white" if self.hollow else colour, markersize=self.size,
        )  # fmt: skip


@for_paper
def row_figure(title: str, rows: Sequence[Row], scores: Sequence[Panel], legend: Sequence[Meaning]) -> Figure:
    """A panel per score with a line per row; rows of one group are adjacent."""
    places = _places([row.group for row in rows])
    width = 1.2 + 0.065 * max(len(row.label) for row in rows) + (2.1 if len(scores) < 5 else 1.75) * len(scores)
    height = 1.75 + 0.24 * (max(places) + 1)
    figure, axes = panels(max(width, 6.0), height, len(scores), share_y=True)
    for panel, score in zip(axes, scores, strict=True):
        _draw_rows(panel, score, rows, places)
        bare_rows(panel)
    middles: dict[str, list[float]] = {}
    for row, place in zip(rows, places, strict=True):
        middles.setdefault(row.label, []).append(place)
    axes[0].set_yticks([sum(of) / len(of) for of in middles.values()], list(middles))
    axes[0].set_ylim(max(places) + 0.6, -0.6)
    _entitle(figure, title, legend)
    return figure


@for_paper
def amount_figure(
    title: str, label: str, rows: Sequence[Row], scores: Sequence[Panel], legend: Sequence[Meaning]
) -> Figure:
    """A panel per score with a line per series over the rows' amounts, on an axis labelled `label`."""
    figure, axes = panels(9.2 if len(scores) > 1 else 5.6, 4.0, len(scores))
    for panel, score in zip(axes, scores, strict=True):
        _draw_series(panel, score, rows)
        panel.set(xlabel=label, ylabel=score.label)
        panel.set_xticks(*zip(*{row.amount: row.label for row in rows}.items(), strict=True))
        panel.grid(axis="y")
    _entitle(figure, title, legend)
    return figure


def _places(groups: Sequence[str]) -> list[float]:
    """Position of each row, from 0 on, with a gap around every group of several rows."""
    places = [0.0]
    for before, after in pairwise(groups):
        gap = before != after and (groups.count(before) > 1 or groups.count(after) > 1)
        places.append(places[-1] + 1 + GROUP_GAP * gap)
    return places


def _draw_rows(axes: Axes, panel: Panel, rows: Sequence[Row], places: Sequence[float]) -> None:
    ends = [end for bar in panel.bars if bar is not None for end in bar.ends]
    published = [value for value in panel.published if value is not None]
    low, high = _limits([0.0, *ends] if panel.difference else ends, published)
    axes.set_xlim(low, high)
    for row, place, bar in zip(rows, places, panel.bars, strict=True):
        if bar is not None:
            width, size = (1.0, 4.0) if row.minor else (1.8, 6.0)
            face = "white" if panel.difference and not bar.emphasised else row.colour
            draw_interval(
                axes, bar, place, row.colour, width=width, size=size, markerfacecolor=face, clip_on=panel.difference
            )
    for place, value in zip(places, panel.published, strict=False):
        if value is not None:
            marker, at = _marker_within(value, low, high)
            axes.plot([at], [place], marker, color=PAPER.muted, fillstyle="none", markersize=6, clip_on=False)
    if panel.difference:
        axes.axvline(0, color=PAPER.muted, linewidth=0.8, zorder=0)
    if panel.reference is not None:
        axes.axvline(panel.reference, color=PAPER.muted, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    axes.set_xlabel(textwrap.fill(panel.label, LABEL_WIDTH))


def _draw_series(axes: Axes, panel: Panel, rows: Sequence[Row]) -> None:
    """A line per series, offset a little so that intervals do not overlap, and the published scores."""
    amounts, last = sorted({row.amount for row in rows}), max(row.series for row in rows)
    step = 0.014 * max(amounts[-1] - amounts[0], 10.0)
    for number in range(last + 1):
        offset, colour = step * (number - last / 2), PAPER.cycle(number)
        places = [
            (row.amount + offset, bar)
            for row, bar in zip(rows, panel.bars, strict=True)
            if bar is not None and row.series == number
        ]
        axes.plot([at for at, _ in places], [bar.mean for _, bar in places], color=colour, linewidth=1.4)
        for at, bar in places:
            draw_interval(axes, bar, at, colour, width=1.4, size=5, upright=True)
    low, high = _limits([end for bar in panel.bars if bar is not None for end in bar.ends])
    axes.set(xlim=(amounts[0] - 5 * step, amounts[-1] + 5 * step), ylim=(low, high))
    axes.yaxis.set_major_locator(MaxNLocator(6))
    if panel.difference:
        axes.axhline(0, color=PAPER.muted, linewidth=1, zorder=0)
    published = {row.amount: value for row, value in zip(rows, panel.published, strict=False) if value is not None}
    for at, value in published.items():
        marker, height = _marker_within(value, low, high, upright=True)
        axes.plot([at], [height], marker, color=PAPER.muted, fillstyle="none", markersize=6, clip_on=False)
    beyond = sorted(value for value in published.values() if not low <= value <= high)
    if beyond:
        span = " to ".join(dict.fromkeys(f"{value:.2f}" for value in (beyond[0], beyond[-1])))
        axes.set_title(f"published: {span}, beyond the axis", fontsize=8.5, color=PAPER.muted, loc="right")


def _limits(ends: Sequence[float], optional: Sequence[float] = ()) -> tuple[float, float]:
    """Axis limits around the measured ends, at least `LEAST_SPAN` wide; optional values are included if near."""
    low, high = min(ends), max(ends)
    reach = max(high - low, LEAST_SPAN)
    near = [value for value in optional if low - reach <= value <= high + reach]
    low, high = min([low, *near]), max([high, *near])
    middle, half = (low + high) / 2, 1.1 * max(high - low, LEAST_SPAN) / 2
    least, most = middle - half, middle + half
    if low >= 0 > least:  # shares are never below 0
        least, most = -0.04 * half, max(most, 2 * half)
    if high <= 1 < most:
        least, most = min(least, 1 - 2 * half), 1 + 0.04 * half
    return least, most


def _marker_within(value: float, low: float, high: float, *, upright: bool = False) -> tuple[str, float]:
    """Marker and position of a value: a diamond, or a triangle at the end of the axis that the value lies beyond."""
    below, above = ("v", "^") if upright else ("<", ">")
    if value < low:
        return below, low
    return ("D", value) if value <= high else (above, high)


def _entitle(figure: Figure, title: str, meanings: Sequence[Meaning]) -> None:
    """The title, and the legend below the panels in as many columns as fit."""
    engine = figure.get_layout_engine()
    assert isinstance(engine, ConstrainedLayoutEngine)
    engine.set(w_pad=0.09)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    longest = max(len(meaning.label) for meaning in meanings)
    columns = max(1, min(len(meanings), int(figure.get_figwidth() / (0.45 + 0.072 * longest))))
    handles = [meaning.handle for meaning in meanings]
    figure.legend(handles=handles, loc="outside lower left", ncols=columns)

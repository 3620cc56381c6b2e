"""Curves over epochs, a federation's rounds and numbers of clusters, and histograms over the same bins, as lines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from ganseg_dist.plots.style import (
    DASHES,
    LINE,
    PAGE,
    canvas,
    for_page,
    legend_above,
    legend_rows,
    plain_levels,
    shortened,
)

Line = Sequence[tuple[int, float]]

LEAST_CHANGE = 0.05
"""Half of a linear axis' span, as a share of the values' level."""

LOG_FROM = 30.0
"""Ratio of the largest to the smallest value from which a linear axis hides the small ones."""

MOST_NAMED = 8
"""With more lines than this, the names at their ends would overlap."""

SLOT = 0.13
"""Width of a bin apart from the scale, as a share of the scale's width."""

WIDTH, HEIGHT, LEFT = 460.0, 250.0, 52.0


@dataclass(frozen=True, slots=True)
class Span:
    """Epochs `first` to `last`, both inside, in which the same phases of training ran."""

    first: int
    last: int
    label: str


@for_page
def line_chart(
    lines: Mapping[str, Line], *, spans: Sequence[Span] = (), marked: int | None = None, shares: bool = False
) -> Figure:
    """Lines over epochs, each named at its end, with a log axis where values span more than `LOG_FROM` times.

    Args:
        lines: (epoch, value) in order, by name.
        spans: phases of training; every other one is shaded, and all are named above.
        marked: an epoch that a thin upright line marks: the one that was kept.
        shares: the values are scores that rise to 1, whose axis is never logarithmic.
    """
    points = [point for line in lines.values() for point in line]
    values = [value for _, value in points]
    figure, axes = _canvas(lines, 1, max(epoch for epoch, _ in points), "epoch", top=24)
    if not shares and min(values) > 0 and max(values) > LOG_FROM * min(values):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(numticks=5))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda level, _: f"{level:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(*_room(values, LEAST_CHANGE if shares else 0.0))
    styles = [(PAGE.cycle(at), DASHES[at % len(DASHES)]) for at in range(len(lines))]
    for (colour, dashes), line in zip(styles, lines.values(), strict=True):
        marker = "o" if len(line) < 3 else ""
        axes.plot(*zip(*line, strict=True), color=colour, dashes=dashes, marker=marker, markersize=4.5)
    _shade(axes, spans)
    if marked is not None:
        axes.axvline(marked, color=PAGE.muted, linewidth=1, dashes=(2, 2))
    _name_ends(axes, [(name, colour, lines[name][-1][1]) for name, (colour, _) in zip(lines, styles, strict=True)])
    return figure


@for_page
def round_chart(lines: Mapping[str, Line], *, axis: str, mean: Line = (), from_zero: bool = False) -> Figure:
    """Lines over a federation's rounds, each named at its end, with a gap where a round is missing.

    More than `MOST_NAMED` lines are drawn alike, and only those that end highest and lowest are named.

    Args:
        lines: (round, value) in order, by name; one at least.
        mean: (round, value) of the mean over all lines, drawn bold.
        from_zero: the values are amounts, whose axis begins at 0.
    """
    few = len(lines) <= MOST_NAMED
    order = sorted((name for name in lines if lines[name]), key=lambda name: lines[name][-1][1])
    named = list(lines) if few else [order[-1], order[0]]
    points = [point for line in (*lines.values(), mean) for point in line]
    numbers, values = zip(*points, strict=True)
    rounds = range(min(numbers), max(numbers) + 1)
    figure, axes = _canvas(map(shortened, named), rounds[0], rounds[-1], "round", top=14)
    axes.set_ylabel(axis)
    axes.set_ylim(*((0, 1.1 * max(values) or 1.0) if from_zero else _room(values)))
    ends: list[tuple[str, str, float]] = []
    for index, (name, line) in enumerate(lines.items()):
        colour = PAGE.cycle(index) if few else PAGE.muted
        _over_rounds(
            axes, line, rounds, color=colour, linewidth=1.5 if few else 0.8, alpha=1 if few else 0.7,
            dashes=DASHES[index % len(DASHES)] if few else (),
        )  # fmt: skip
        if name in named and line:
            ends.append((shortened(name), colour, line[-1][1]))
    if mean:
        _over_rounds(axes, mean, rounds, color=PAGE.ink, linewidth=3.2)
        ends.append(("mean", PAGE.ink, mean[-1][1]))
    _name_ends(axes, ends)
    return figure


@for_page
def elbow_chart(points: Line, *, chosen: int | None = None) -> Figure:
    """Within-cluster sum of squares by number of clusters, the chosen number as a dot."""
    figure, axes = canvas(460, 270, left=64, right=16, bottom=42, top=12)
    axes.plot(*zip(*points, strict=True), color=PAGE.accent, marker="o", markersize=4.5)
    for k, value in points:
        if k == chosen:
            axes.plot([k], [value], "o", color=PAGE.ink, markersize=9)
            axes.annotate(f"k = {k}, chosen", (k, value), xytext=(8, 8), textcoords="offset points")
    plain_levels(axes)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda level, _: f"{level:g}"))
    axes.set_ylim(bottom=0)
    axes.set_xticks([k for k, _ in points])
    axes.set(xlabel="clusters, k", ylabel="sum of squares within clusters")
    return figure


def _canvas(names: Iterable[str], first: int, last: int, label: str, *, top: float) -> tuple[Figure, Axes]:
    """A canvas of lines from `first` to `last` with room for their names on the right."""
    longest = max(map(len, names), default=0)
    figure, axes = canvas(460, 270, left=66, right=16 + 6.8 * max(longest, 4), bottom=42, top=top)
    plain_levels(axes)
    axes.set(xlim=(first - 0.5, last + 0.5), xlabel=label)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    return figure, axes


def _shade(axes: Axes, spans: Sequence[Span]) -> None:
    for index, span in enumerate(spans):
        if index % 2:
            axes.axvspan(span.first - 0.5, span.last + 0.5, color=PAGE.shade, zorder=0, linewidth=0)
        axes.annotate(
            span.label, (span.first - 0.5, 1.0), xycoords=("data", "axes fraction"), xytext=(3, 6),
            textcoords="offset points", color=PAGE.muted,
        )  # fmt: skip


def _over_rounds(axes: Axes, line: Line, rounds: range, **style: Any) -> None:
    """Plot a line that breaks where a round is missing, with dots where the line alone would be invisible."""
    values = dict(line)
    marker = "o" if len(rounds) < 3 or len(values) < len(rounds) else ""
    axes.plot(rounds, [values.get(number, np.nan) for number in rounds], marker=marker, markersize=4, **style)


def _room(values: Sequence[float], least: float = 0.0) -> tuple[float, float]:
    """Limits of the axis: wide enough that small changes look small, and not below 0 without need.

    Args:
        least: lower bound of half the span, beside LEAST_CHANGE of the values' level.
    """
    low, high = min(values), max(values)
    middle = (low + high) / 2
    half = 1.1 * max((high - low) / 2, LEAST_CHANGE * abs(middle), least, 1e-9)
    bottom = 0.0 if low >= 0 > middle - half else middle - half
    return bottom - 0.02 * half, bottom + 2 * half


def _name_ends(axes: Axes, ends: Sequence[tuple[str, str, float]]) -> None:
    """Names of lines (name, colour, last value) beside the axes, moved apart where they would touch."""
    to_axes = (axes.transData + axes.transAxes.inverted()).transform
    order = sorted(ends, key=lambda end: end[2])
    heights = _apart([float(to_axes((0, value))[1]) for _, _, value in order], 15 / axes.bbox.height)
    for (name, colour, _), height in zip(order, heights, strict=True):
        axes.annotate(
            name, (1.0, height), xycoords="axes fraction", xytext=(6, 0), textcoords="offset points",
            va="center", color=colour,
        )  # fmt: skip


def _apart(heights: Sequence[float], least: float) -> list[float]:
    """Rising heights moved so that neighbours are `least` apart, none below 0, and as few as can be above 1."""
    placed: list[float] = []
    for height in heights:
        placed.append(max(height, placed[-1] + least) if placed else max(height, 0.0))
    ceiling = 1.0
    for index in reversed(range(len(placed))):
        placed[index] = max(min(placed[index], ceiling), index * least)
        ceiling = placed[index] - least
    return placed


@dataclass(frozen=True, slots=True)
class Histogram:
    """One group's shares of each bin, in percent."""

    name: str
    apart: npt.NDArray[np.float64]
    """Of bins on no scale."""
    scale: npt.NDArray[np.float64]
    """Of neighbouring bins; may be empty."""
    number: int | None
    """Decides colour and dashes; None: all groups together, drawn bold."""
    named: bool = True
    """Unnamed ones are thin and grey."""

    @property
    def colour(self) -> str:
        """The line's colour."""
        if self.number is None:
            return PAGE.ink
        return PAGE.cycle(self.number) if self.named else PAGE.muted

    @property
    def line(self) -> dict[str, Any]:
        """The line's style; a repeated colour is dashed."""
        if self.number is None:
            return {"color": self.colour, "linewidth": 3.2}
        dashes = DASHES[self.number // len(PAGE.series) % len(DASHES)]
        width = 1.6 if self.named else 0.8
        return {"color": self.colour, "linewidth": width, "linestyle": (0, dashes) if dashes else "-"}


@for_page
def histogram_chart(
    histograms: Sequence[Histogram],
    *,
    apart: Sequence[str],
    ticks: Sequence[tuple[float, str]],
    x_label: str,
    y_label: str,
) -> Figure:
    """Bins apart from the scale on the left, each in a slot, then the scale; later histograms lie on top.

    Args:
        apart: names of the bins apart from the scale.
        ticks: places on the scale, in bins from its left end, with their labels.
    """
    bins = len(histograms[0].scale)
    slot = max(1.0, SLOT * bins)
    start = slot * len(apart) + (0.4 * slot if apart and bins else 0)
    places = [(slot * (place + 0.5), name.replace(" ", "\n", 1)) for place, name in enumerate(apart)]
    places += [(start + across, label) for across, label in ticks]
    rows = legend_rows([(each.name, each.colour) for each in histograms if each.named], WIDTH - 45)
    top, below = 8 + LINE * len(rows), LINE * any("\n" in label for _, label in places)
    figure, axes = canvas(WIDTH, HEIGHT + top + below, left=LEFT, right=14, bottom=46 + below, top=top)
    for histogram in histograms:
        for place, share in enumerate(histogram.apart):
            axes.plot([slot * (place + 0.12), slot * (place + 0.88)], [share, share], **histogram.line)
        if bins:
            axes.stairs(histogram.scale, start + np.arange(bins + 1), baseline=None, **histogram.line)
    axes.set_xlim(0, start + bins)
    axes.set_ylim(bottom=0)
    axes.set_xticks(*zip(*places, strict=True))
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.grid(axis="y")
    legend_above(axes, rows, LEFT, bold=next((each.name for each in histograms if each.number is None), ""))
    return figure

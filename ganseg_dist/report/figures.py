"""Draws figures: data in, SVG text out.

An SVG takes its colours from the page (`--figure-*` of report.css), so that the same figure serves light, dark and
print; its letters stay text. One user unit is one CSS pixel.
"""

from __future__ import annotations

import hashlib
import html
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from ganseg_dist.drawing import plain_text
from ganseg_dist.printable import printable

# Stand-ins that matplotlib can draw with; `svg` puts the page's colours in their place.
INK, MUTED, RULE, SHADE, ACCENT = ("#0100a1", "#0100a2", "#0100a3", "#0100a4", "#0100a5")
SERIES = ("#0200b1", "#0200b2", "#0200b3", "#0200b4", "#0200b5", "#0200b6")
COLOUR_NAMES = {INK: "ink", MUTED: "muted", RULE: "rule", SHADE: "shade", ACCENT: "accent"} | {
    stand_in: str(index) for index, stand_in in enumerate(SERIES, start=1)
}

DASHES: tuple[tuple[float, ...], ...] = ((), (5, 2), (1.5, 1.5), (7, 2, 1.5, 2))
LOG_FROM = 30.0
"""Ratio of the largest to the smallest value from which a linear axis hides the small ones."""

LEAST_CHANGE = 0.05
"""Half of a linear axis' span, as a share of the values' level."""

LONGEST_LINE = 30
"""Characters in each of the two lines of a row's label."""

MOST_NAMED = 8
"""With more lines than this, the names at their ends would overlap."""

LONGEST_NAME = 18
"""Characters of the name at a line's end."""

LARGEST_DOT, SMALLEST_DOT = 18.0, 3.0
"""Diameters in pixels of dots whose area encodes a weight; the smallest is still visible."""

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 12,
    "axes.labelsize": 12,
    "axes.titlesize": 12,
    "axes.linewidth": 0.8,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "text.color": INK,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.8,
}


@dataclass(frozen=True, slots=True)
class Span:
    """Epochs `first` to `last`, both inside, in which the same phases of learning ran."""

    first: int
    last: int
    label: str


@dataclass(frozen=True, slots=True)
class Bar:
    """A mean with its interval, or without one."""

    label: str
    mean: float
    low: float | None = None
    high: float | None = None
    emphasised: bool = False


@dataclass(frozen=True, slots=True)
class Dot:
    """A point whose area is proportional to its weight."""

    x: float
    y: float
    weight: int


def line_chart(
    lines: Mapping[str, Sequence[tuple[int, float]]],
    *,
    description: str,
    spans: Sequence[Span] = (),
    marked: int | None = None,
    shares: bool = False,
) -> str:
    """Lines over epochs, each named at its end, with a log axis where values span more than `LOG_FROM` times.

    Args:
        lines: (epoch, value) in order, by name.
        spans: phases of learning; every other one is shaded, and all are named above.
        marked: an epoch that a thin upright line marks: the one that was kept.
        shares: the values are scores that rise to 1, whose axis is never logarithmic.
    """
    with mpl.rc_context(STYLE):
        figure, axes = canvas(460, 270, left=66, right=16 + 6.6 * max(map(len, lines), default=0), bottom=42, top=24)
        values = np.array([value for line in lines.values() for _, value in line])
        if not shares and (values > 0).all() and values.max() > LOG_FROM * values.min():
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(numticks=5))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda level, _: f"{level:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
        else:
            axes.yaxis.set_major_locator(MaxNLocator(5))
            axes.ticklabel_format(axis="y", style="plain", useOffset=False)  # no 1e-6+3.612e-2 above the axis
            axes.set_ylim(*_room(values, LEAST_CHANGE if shares else 0.0))
        axes.grid(axis="y", alpha=0.6)
        axes.set_axisbelow(True)
        for index, (name, line) in enumerate(lines.items()):
            epochs, levels = zip(*line, strict=True)
            axes.plot(
                epochs,
                levels,
                color=SERIES[index % len(SERIES)],
                dashes=DASHES[index % len(DASHES)],
                marker="o" if len(line) < 3 else "",
                markersize=4.5,
                label=name,
            )
        last = max(epoch for line in lines.values() for epoch, _ in line)
        axes.set_xlim(0.5, last + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        axes.set_xlabel("epoch")
        _shade(axes, spans)
        if marked is not None:
            axes.axvline(marked, color=MUTED, linewidth=1, dashes=(2, 2))
        _name_ends(
            axes, [(name, SERIES[at % len(SERIES)], line[-1][1]) for at, (name, line) in enumerate(lines.items())]
        )
        return svg(figure, description)


def round_chart(
    lines: Mapping[str, Sequence[tuple[int, float]]],
    *,
    axis: str,
    description: str,
    mean: Sequence[tuple[int, float]] = (),
    from_zero: bool = False,
) -> str:
    """Lines over a federation's rounds, each named at its end, with a gap where a round is missing.

    More than `MOST_NAMED` lines are drawn alike, and only those that end highest and lowest are named.

    Args:
        lines: (round, value) in order, by name; one at least.
        mean: (round, value) of the mean over all lines, drawn bold.
        from_zero: the values are amounts, whose axis begins at 0.
    """
    names = {name: shortened(name) for name in lines}
    few = len(lines) <= MOST_NAMED
    order = sorted((name for name in lines if lines[name]), key=lambda name: lines[name][-1][1])
    named = list(lines) if few else [order[-1], order[0]]
    with mpl.rc_context(STYLE):
        longest = max(len(names[name]) for name in named)
        figure, axes = canvas(460, 270, left=66, right=16 + 6.8 * max(longest, 4), bottom=42, top=14)
        points = [point for line in (*lines.values(), mean) for point in line]
        axes.set_ylim(*_room(np.array([value for _, value in points]), 0.0))
        if from_zero:
            axes.set_ylim(0, 1.1 * max(value for _, value in points) or 1.0)
        rounds = range(min(number for number, _ in points), max(number for number, _ in points) + 1)
        ends: list[tuple[str, str, float]] = []
        for index, (name, line) in enumerate(lines.items()):
            colour = SERIES[index % len(SERIES)] if few else MUTED
            _over_rounds(
                axes, line, rounds, color=colour, linewidth=1.5 if few else 0.8, alpha=1 if few else 0.7,
                dashes=DASHES[index % len(DASHES)] if few else (),
            )  # fmt: skip
            if name in named and line:
                ends.append((names[name], colour, line[-1][1]))
        if mean:
            _over_rounds(axes, mean, rounds, color=INK, linewidth=3.2)
            ends.append(("mean", INK, mean[-1][1]))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.ticklabel_format(axis="y", style="plain", useOffset=False)
        axes.grid(axis="y", alpha=0.6)
        axes.set_axisbelow(True)
        axes.set_xlim(rounds[0] - 0.5, rounds[-1] + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        axes.set_xlabel("round")
        axes.set_ylabel(axis)
        _name_ends(axes, ends)
        return svg(figure, description)


def grouped_chart(
    groups: Mapping[str, Sequence[Bar]], *, axis: str, description: str, limits: tuple[float, float] = (0.0, 1.0)
) -> str:
    """Means with 95% intervals as rows in named groups, a colour for each label with the legend above."""
    labels = list(dict.fromkeys(bar.label for bars in groups.values() for bar in bars))
    colours = {label: SERIES[index % len(SERIES)] for index, label in enumerate(labels)}
    names = [_in_two_lines(name) for name in groups]
    left = 16 + 7.2 * max(len(line) for name in names for line in name.splitlines())
    with mpl.rc_context(STYLE):
        height = 16.0 * sum(map(len, groups.values())) + 14 * len(groups)
        figure, axes = canvas(620, 84 + height, left=left, right=14, bottom=44, top=40)
        top, middles = 0.0, []
        for bars in groups.values():
            for row, bar in enumerate(bars):
                place, colour = top + 16 * row, colours[bar.label]
                if bar.low is not None and bar.high is not None:
                    axes.plot([bar.low, bar.high], [place, place], color=colour, linewidth=2)
                axes.plot([bar.mean], [place], "o", color=colour, markersize=8 if bar.emphasised else 6)
            middles.append(top + 8 * (len(bars) - 1))
            top += 16 * len(bars) + 14
            axes.axhline(top - 15, color=RULE, linewidth=0.6)
        axes.set_ylim(top - 15, -15)
        axes.set_yticks(middles, names)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x", alpha=0.6)
        axes.set_axisbelow(True)
        margin = 0.02 * (limits[1] - limits[0])
        axes.set_xlim(limits[0] - margin, limits[1] + margin)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.set_xlabel(axis)
        across = 16.0
        for label, colour in colours.items():
            axes.annotate(
                f"● {label}", (0, 1), xycoords="figure fraction", xytext=(across, -18), textcoords="offset points",
                va="center", color=colour,
            )  # fmt: skip
            across += 7.2 * (len(label) + 4)
        return svg(figure, description)


def interval_chart(
    bars: Sequence[Bar], *, axis: str, description: str, limits: tuple[float, float] | None = None
) -> str:
    """One row a method: its mean as a dot, its 95% interval as a line, the first on top."""
    with mpl.rc_context(STYLE):
        figure, axes = _rows([bar.label for bar in bars])
        for row, bar in enumerate(bars):
            colour = ACCENT if bar.emphasised else MUTED
            if bar.low is not None and bar.high is not None:
                axes.plot([bar.low, bar.high], [row, row], color=colour, linewidth=2.2 if bar.emphasised else 1.6)
            axes.plot([bar.mean], [row], "o", color=colour, markersize=8 if bar.emphasised else 6)
        for label, bar in zip(axes.get_yticklabels(), bars, strict=True):
            label.set_color(INK if bar.emphasised else MUTED)
        if limits is None:
            ends = [end for bar in bars for end in (bar.low, bar.mean, bar.high) if end is not None]
            limits = (min(0.0, *ends), 1.08 * max(*ends, 1e-9))
        margin = 0.02 * (limits[1] - limits[0])
        axes.set_xlim(limits[0] - margin, limits[1] + margin)
        axes.set_xlabel(axis)
        return svg(figure, description)


def strip_chart(groups: Mapping[str, Sequence[float]], *, axis: str, description: str) -> str:
    """One row a group, one dot a case, its median as an upright line; scores in [0, 1]."""
    with mpl.rc_context(STYLE):
        labels = [f"{name} ({len(values)})" for name, values in groups.items()]
        figure, axes = _rows(labels, row_height=34 if len(groups) < 8 else 24)
        for row, values in enumerate(groups.values()):
            # Steps of the golden ratio fill the row's height evenly, whatever the number of cases.
            lift = (np.arange(len(values)) * 0.618 % 1 - 0.5) * 0.5
            axes.plot(sorted(values), row + lift, "o", color=ACCENT, alpha=0.55, markersize=5, markeredgewidth=0)
            median = float(np.median(values))
            axes.plot([median, median], [row - 0.36, row + 0.36], color=INK, linewidth=2)
        axes.set_xlim(-0.02, 1.02)
        axes.set_xlabel(axis)
        return svg(figure, description)


def roc_chart(
    points: Sequence[tuple[float, float]], *, description: str, chosen: tuple[float, float] | None = None
) -> str:
    """True against false positive rate, chance as a dashed diagonal, the calibrated threshold as a dot."""
    with mpl.rc_context(STYLE):
        figure, axes = canvas(330, 330, left=50, right=12, bottom=44, top=10)
        axes.plot([0, 1], [0, 1], color=RULE, linewidth=1, dashes=(4, 3))
        false_positives, true_positives = zip(*points, strict=True)
        axes.plot(false_positives, true_positives, color=ACCENT, linewidth=2.2)
        if chosen is not None:
            axes.plot(*chosen, "o", color=INK, markersize=7)
            axes.annotate(
                "chosen threshold",
                chosen,
                xytext=(10, -14),
                textcoords="offset points",
                ha="left" if chosen[0] < 0.55 else "right",
            )
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        axes.set_xlabel("false positive rate (1 − specificity)")
        axes.set_ylabel("true positive rate (sensitivity)")
        return svg(figure, description)


def calibration_chart(dots: Sequence[Dot], *, note: str, description: str) -> str:
    """Accuracy against confidence, both in [0, 1], the dashed diagonal where they agree, and the text `noted`."""
    with mpl.rc_context(STYLE):
        figure, axes = canvas(330, 330, left=50, right=12, bottom=44, top=10)
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, dashes=(4, 3))
        heaviest = max((dot.weight for dot in dots), default=1)
        for dot in dots:
            diameter = max(LARGEST_DOT * (dot.weight / heaviest) ** 0.5, SMALLEST_DOT)
            axes.plot(
                [dot.x], [dot.y], "o", color=ACCENT, alpha=0.75, markersize=diameter, markeredgewidth=0, clip_on=False
            )
        axes.annotate(note, (0.03, 0.93), xycoords="axes fraction", color=INK)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        axes.set_xlabel("confidence (highest probability)")
        axes.set_ylabel("accuracy (share that is right)")
        return svg(figure, description)


def elbow_chart(points: Sequence[tuple[int, float]], *, description: str, chosen: int | None = None) -> str:
    """Within-cluster sum of squares by number of clusters, the chosen number as a dot."""
    with mpl.rc_context(STYLE):
        figure, axes = canvas(460, 270, left=64, right=16, bottom=42, top=12)
        axes.plot(*zip(*points, strict=True), color=ACCENT, marker="o", markersize=4.5)
        for k, value in points:
            if k == chosen:
                axes.plot([k], [value], "o", color=INK, markersize=9)
                axes.annotate(f"k = {k}, chosen", (k, value), xytext=(8, 8), textcoords="offset points")
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda level, _: f"{level:g}"))
        axes.grid(axis="y", alpha=0.6)
        axes.set_axisbelow(True)
        axes.set_xticks([k for k, _ in points])
        axes.set_xlabel("clusters, k")
        axes.set_ylabel("sum of squares within clusters")
        return svg(figure, description)


def canvas(width: float, height: float, *, left: float, right: float, bottom: float, top: float) -> tuple[Figure, Axes]:
    """A figure of width x height pixels whose axes leave these margins in pixels."""
    figure = Figure(figsize=(width / 72, height / 72), dpi=72)
    box = (left / width, bottom / height, 1 - (left + right) / width, 1 - (bottom + top) / height)
    return figure, figure.add_axes(box)


def _rows(labels: Sequence[str], row_height: float = 30) -> tuple[Figure, Axes]:
    """A canvas with one named row a label, the first on top; a long name takes two lines."""
    names = [_in_two_lines(label) for label in labels]
    left = 16 + 7.2 * max(len(line) for name in names for line in name.splitlines())
    figure, axes = canvas(520, 54 + row_height * len(labels), left=left, right=14, bottom=44, top=10)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_yticks(range(len(labels)), names)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", alpha=0.6)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    return figure, axes


def _in_two_lines(label: str) -> str:
    """Broken between words, else after punctuation, else anywhere; what two lines cannot hold is left out."""
    if len(label) <= LONGEST_LINE:
        return label
    match = re.match(rf"(.{{1,{LONGEST_LINE}}})(?<=[ ,._-])(.+)", label)
    first, rest = match.groups() if match else (label[:LONGEST_LINE], label[LONGEST_LINE:])
    return f"{first.rstrip()}\n{rest if len(rest) <= LONGEST_LINE else rest[: LONGEST_LINE - 1] + '…'}"


def _room(values: npt.NDArray[np.float64], least: float) -> tuple[float, float]:
    """Limits of the axis: wide enough that small changes look small, and not below 0 without need.

    Args:
        least: lower bound of half the span, beside LEAST_CHANGE of the values' level.
    """
    low, high = float(values.min()), float(values.max())
    middle = (low + high) / 2
    half = 1.1 * max((high - low) / 2, LEAST_CHANGE * abs(middle), least, 1e-9)
    bottom = 0.0 if low >= 0 > middle - half else middle - half
    return bottom - 0.02 * half, bottom + 2 * half


def _shade(axes: Axes, spans: Sequence[Span]) -> None:
    for index, span in enumerate(spans):
        if index % 2:
            axes.axvspan(span.first - 0.5, span.last + 0.5, color=SHADE, zorder=0, linewidth=0)
        axes.annotate(
            span.label,
            (span.first - 0.5, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(3, 6),
            textcoords="offset points",
            color=MUTED,
        )


def _over_rounds(axes: Axes, line: Sequence[tuple[int, float]], rounds: range, **style: Any) -> None:
    """Plot a line that breaks where a round is missing, with dots where the line alone would be invisible."""
    values = dict(line)
    marker = "o" if len(rounds) < 3 or len(values) < len(rounds) else ""
    axes.plot(rounds, [values.get(number, np.nan) for number in rounds], marker=marker, markersize=4, **style)


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


def shortened(name: str) -> str:
    """The name cut to LONGEST_NAME characters, with an ellipsis."""
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def _apart(heights: Sequence[float], least: float) -> list[float]:
    """Rising heights moved so that neighbours stand `least` apart, none below 0, and as few as can be above 1."""
    placed: list[float] = []
    for height in heights:
        placed.append(max(height, placed[-1] + least) if placed else max(height, 0.0))
    ceiling = 1.0
    for index in reversed(range(len(placed))):
        placed[index] = max(min(placed[index], ceiling), index * least)
        ceiling = placed[index] - least
    return placed


def svg(figure: Figure, description: str) -> str:
    """The figure as an `<svg>` element in the page's colours, with ids that are unique on the page."""
    stream = io.StringIO()
    with plain_text(figure), mpl.rc_context({"svg.hashsalt": description}):
        figure.savefig(stream, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
    for stand_in, name in COLOUR_NAMES.items():
        text = text.replace(stand_in, f"var(--figure-{name})")
    text = re.sub(r"(font: [^;\"]*?px) [^;\"]*", r"\1 var(--sans)", text)
    prefix = "f" + hashlib.blake2b((description + text).encode(), digest_size=4).hexdigest()
    text = re.sub(r"\bid=\"", f'id="{prefix}-', text)
    text = re.sub(r"(url\(#|href=\"#)", rf"\1{prefix}-", text)
    width, height = (round(figure.get_size_inches()[side] * 72) for side in (0, 1))
    head = (
        f'<svg viewBox="0 0 {width} {height}" style="width: {width}px" class="figure" role="img" '
        f'aria-label="{html.escape(printable(description))}" xmlns:xlink="http://www.w3.org/1999/xlink">'
    )
    return head + text[text.index(">") + 1 :].strip()

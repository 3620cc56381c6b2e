"""A table's rows as a figure: means with 95% intervals, and beside them the differences to the reference row.

Axes fit the measured values and span at least `LEAST_SPAN`; a published score, of other images, is a hollow mark, which
stands at the edge of the axis where it lies beyond.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ganseg_dist.metrics.statistics import Interval
from ganseg_dist.plural import counted
from ganseg_dist.studies.experiments.table import Row, has_interval
from ganseg_dist.studies.experiments.wording import SHARED_TRAINING, describe_subjects, row_title, worded

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Okabe and Ito's palette, distinct for every kind of colour vision."""
INK, MUTED, RULE = "#1b2126", "#6b7680", "#d0d6da"
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.labelsize": 9,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
}
DPI = 150

LEAST_SPAN = 0.1
"""Smallest span of an axis, so that small differences do not look large."""
LABEL_WIDTH = 24
"""Letters per line of a label under a panel."""
GROUP_GAP = 0.6
"""Gap between groups of rows, in rows."""


def intervals(rows: Sequence[Row], title: str) -> Figure:
    """A panel per score with a line per row; the second panel is the first score's difference to the reference row.

    Rows that differ in their arm and in other labels are grouped by the latter, with a colour per arm.
    """
    first, *others = rows[0].scores
    differ = any(row.against for row in rows)
    places, colours = _places(rows), _colours(rows)
    with mpl.rc_context(STYLE):
        panels = 1 + differ + len(others)
        width = 1.2 + 0.065 * max(len(row.title) for row in rows) + (2.1 if panels < 5 else 1.75) * panels
        figure = Figure(figsize=(max(width, 6.0), 1.75 + 0.24 * (max(places) + 1)), dpi=DPI, layout="constrained")
        axes = list(figure.subplots(1, panels, sharey=True, squeeze=False)[0])
        _score_panel(axes[0], rows, first, places, colours)
        if differ:
            _difference_panel(axes[1], rows, first, places, colours)
        for panel, score in zip(axes[1 + differ :], others, strict=True):
            _score_panel(panel, rows, score, places, colours)
        axes[0].set_yticks(*_row_ticks(rows, places))
        axes[0].set_ylim(max(places) + 0.6, -0.6)
        for panel in axes:
            panel.tick_params(axis="y", length=0)
            panel.spines["left"].set_visible(False)
            panel.grid(axis="x", color=RULE, linewidth=0.6)
            panel.set_axisbelow(True)
        _set_title(figure, rows, title)
        _legend(figure, _legend_handles(rows, differ=differ))
    return figure


def curves(rows: Sequence[Row], x: str, title: str) -> Figure:
    """The first score against the label `x`, the share of training patients: a line per arm, with intervals.

    Beside it the differences to the first arm, where there are several.
    """
    score = next(iter(rows[0].scores))
    differ = any(row.against for row in rows)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.2 if differ else 5.6, 4.0), dpi=DPI, layout="constrained")
        panels = list(figure.subplots(1, 1 + differ, squeeze=False)[0])
        _arms(panels[0], rows, x, {row.title: row.scores[score] for row in rows})
        _published_points(panels[0], rows, x, score)
        panels[0].set_ylabel(rows[0].titles[score])
        if differ:
            against = {row.title: row.against[score].difference for row in rows if row.against}
            _arms(panels[1], rows, x, against)
            panels[1].axhline(0, color=MUTED, linewidth=1, zorder=0)
            panels[1].set_ylabel(_difference_label(rows, score))
        for panel in panels:
            panel.set_xticks(*_amount_ticks(rows, x))
            panel.set_xlabel("share of the training patients" + (" (number)" if "patients" in rows[0].labels else ""))
            panel.grid(axis="y", color=RULE, linewidth=0.6)
            panel.set_axisbelow(True)
        _set_title(figure, rows, title)
        _legend(figure, _legend_handles(rows, differ=False))
    return figure


def _score_panel(axes: Axes, rows: Sequence[Row], score: str, places: Sequence[float], colours: Sequence[str]) -> None:
    """Means with their intervals; folds are small marks, published scores hollow ones."""
    name = _published_name(score)
    published_scores = [row.published.get(name) for row in rows]
    ends = [end for row in rows for end in _ends(row.scores[score])]
    low, high = _limits(ends, [value for value in published_scores if value is not None])
    axes.set_xlim(low, high)
    for row, place, colour, published in zip(rows, places, colours, published_scores, strict=True):
        interval = row.scores[score]
        width, size = (1.0, 4.0) if row.fold else (1.8, 6.0)
        if has_interval(interval):
            axes.plot([interval.low, interval.high], [place, place], color=colour, linewidth=width)
        axes.plot([interval.mean], [place], "o", color=colour, markersize=size, clip_on=False)
        if published is not None:
            marker, at = _marker_within(published, low, high)
            axes.plot([at], [place], marker, color=MUTED, fillstyle="none", markersize=6, clip_on=False)
    if len(rows) > 1 and sum(not row.reference for row in rows) == 1:  # all are compared with the first
        axes.axvline(rows[0].scores[score].mean, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
    _x_axis(axes, rows[0].titles[score])


def _difference_panel(
    axes: Axes, rows: Sequence[Row], score: str, places: Sequence[float], colours: Sequence[str]
) -> None:
    """Paired differences; the mark is filled where the rows differ significantly."""
    pairs = [row.against.get(score) for row in rows]
    ends = [end for pair in pairs if pair is not None for end in _ends(pair.difference)]
    axes.set_xlim(*_limits([0.0, *ends]))
    axes.axvline(0, color=MUTED, linewidth=0.8, zorder=0)
    for pair, place, colour in zip(pairs, places, colours, strict=True):
        if pair is None:
            continue
        difference = pair.difference
        if has_interval(difference):
            axes.plot([difference.low, difference.high], [place, place], color=colour, linewidth=1.8)
        face = colour if pair.differs else "white"
        axes.plot([difference.mean], [place], "o", color=colour, markerfacecolor=face, markersize=6)
    _x_axis(axes, _difference_label(rows, score))


def _arms(axes: Axes, rows: Sequence[Row], x: str, values: Mapping[str, Interval]) -> None:
    """A line per arm over the amounts, each with a small horizontal offset so that intervals do not overlap."""
    names = _arm_names(rows)
    amounts = sorted({float(row.labels[x]) for row in rows})
    step = 0.014 * max(amounts[-1] - amounts[0], 10.0)
    for number, name in enumerate(names):
        arm_rows = [row for row in rows if row.labels["arm"] == name and row.title in values]
        offset = step * (number - (len(names) - 1) / 2)
        at = [float(row.labels[x]) + offset for row in arm_rows]
        arm_intervals = [values[row.title] for row in arm_rows]
        colour = COLOURS[number % len(COLOURS)]
        axes.plot(at, [interval.mean for interval in arm_intervals], "-o", color=colour, linewidth=1.4, markersize=5)
        for place, interval in zip(at, arm_intervals, strict=True):
            if has_interval(interval):
                axes.plot([place, place], [interval.low, interval.high], color=colour, linewidth=1.4, alpha=0.75)
    axes.set_ylim(*_limits([end for interval in values.values() for end in _ends(interval)]))
    axes.set_xlim(amounts[0] - 5 * step, amounts[-1] + 5 * step)
    axes.yaxis.set_major_locator(MaxNLocator(6))


def _published_points(axes: Axes, rows: Sequence[Row], x: str, score: str) -> None:
    """Published scores as hollow marks; those beyond the axis are arrows at its edge, with their range in a title."""
    name = _published_name(score)
    published = {float(row.labels[x]): row.published[name] for row in rows if name in row.published}
    low, high = axes.get_ylim()
    beyond = [value for value in published.values() if not low <= value <= high]
    for place, value in published.items():
        marker, at = _marker_within(value, low, high, upright=True)
        axes.plot([place], [at], marker, color=MUTED, fillstyle="none", markersize=6, clip_on=False)
    if beyond:
        span = f"{min(beyond):.2f}" + (f" to {max(beyond):.2f}" if max(beyond) > min(beyond) else "")
        axes.set_title(f"published: {span}, beyond the axis", fontsize=8.5, color=MUTED, loc="right")


def _places(rows: Sequence[Row]) -> list[float]:
    """Position of each row, from 0 on, with a gap around every group of several rows."""
    groups = [_group(row) for row in rows]
    places, position = [0.0], 0.0
    for before, after in pairwise(groups):
        gap = before != after and (groups.count(before) > 1 or groups.count(after) > 1)
        position += 1 + GROUP_GAP * gap
        places.append(position)
    return places


def _group(row: Row) -> str:
    """Name of a row's group, which its rows share: all labels but the arm, or the first label."""
    if "arm" in row.labels and len(row.labels) > 1:
        return row_title({name: value for name, value in row.labels.items() if name != "arm"})
    return "folds" if row.fold else str(next(iter(row.labels.values())))


def _is_grouped(rows: Sequence[Row]) -> bool:
    labels = rows[0].labels
    return "arm" in labels and len(labels) > 1 and len({_group(row) for row in rows}) > 1 and len(_arm_names(rows)) > 1


def _colours(rows: Sequence[Row]) -> list[str]:
    """A colour per arm where rows are grouped; otherwise one colour, and grey for folds."""
    if _is_grouped(rows):
        names = _arm_names(rows)
        return [COLOURS[names.index(row.labels["arm"]) % len(COLOURS)] for row in rows]
    return [MUTED if row.fold else COLOURS[0] for row in rows]


def _arm_names(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row.labels["arm"] for row in rows if "arm" in row.labels))


def _row_ticks(rows: Sequence[Row], places: Sequence[float]) -> tuple[list[float], list[str]]:
    """Ticks per row, or per group, with n where it differs between rows."""
    score = next(iter(rows[0].scores))
    same_n = len({row.scores[score].n for row in rows}) == 1
    names = [row.title if same_n else f"{row.title} (n = {row.scores[score].n})" for row in rows]
    if not _is_grouped(rows):
        return list(places), names
    middles: dict[str, list[float]] = {}
    for row, place in zip(rows, places, strict=True):
        name = _group(row) if same_n else f"{_group(row)} (n = {row.scores[score].n})"
        middles.setdefault(name, []).append(place)
    return [sum(of) / len(of) for of in middles.values()], list(middles)


def _amount_ticks(rows: Sequence[Row], x: str) -> tuple[list[float], list[str]]:
    """Ticks at the percentages, with the number of patients where it is known."""
    counts = {float(row.labels[x]): row.labels.get("patients") for row in rows}
    return list(counts), [f"{at:g}%" + ("" if count is None else f"\n({count})") for at, count in counts.items()]


def _x_axis(axes: Axes, label: str) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    axes.set_xlabel(textwrap.fill(label, LABEL_WIDTH))


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


def _ends(interval: Interval) -> tuple[float, ...]:
    return (interval.low, interval.mean, interval.high) if has_interval(interval) else (interval.mean,)


def _difference_label(rows: Sequence[Row], score: str) -> str:
    references = dict.fromkeys(row.reference for row in rows if row.reference)
    return f"{rows[0].titles[score]} less {' or '.join(references)}"


def _set_title(figure: Figure, rows: Sequence[Row], title: str) -> None:
    """Set the figure's title: the experiment, the number of test patients, and the seeds per row."""
    engine = figure.get_layout_engine()
    assert isinstance(engine, ConstrainedLayoutEngine)
    engine.set(w_pad=0.09)
    score = next(iter(rows[0].scores))
    counts = sorted({row.scores[score].n for row in rows if not row.fold})
    known = all(row.patients_known for row in rows)
    over = describe_subjects(counts[-1], patients_known=known)
    if len(counts) > 1:
        over = f"{counts[0]} to {over}"
    runs = {row.runs for row in rows if not row.fold}
    folds = any(row.fold for row in rows)
    seeds = f"; {counted(min(runs), 'seed')}" if len(runs) == 1 and not folds and min(runs) > 1 else ""
    what = "Mean and 95% interval over" if counts[-1] > 1 else "Mean of"
    shared = f"\n{SHARED_TRAINING}" if folds else ""
    figure.suptitle(f"{title}\n{what} {over}{seeds}{shared}", x=0.01, ha="left", fontsize=10)


def _legend_handles(rows: Sequence[Row], *, differ: bool) -> Iterator[Artist]:
    """Legend entries for the colours and marks in use."""
    names = _arm_names(rows)
    coloured = _is_grouped(rows)
    if coloured:
        for number, name in enumerate(names):
            yield _mark("-o", worded({"arm": name}, "arm"), COLOURS[number % len(COLOURS)])
    else:
        yield _mark("-o", "all folds together" if rows[0].labels.get("fold") else "mean and 95% interval", COLOURS[0])
    if any(row.fold for row in rows):
        yield _mark("-o", "a fold by itself", MUTED, size=4)
    pairs = [pair for row in rows for pair in list(row.against.values())[:1]] if differ else []
    if any(pair.differs for pair in pairs):
        yield _mark(
            "o",
            "difference shown: its interval leaves 0 out, and sign flips agree",
            COLOURS[0] if not coloured else INK,
        )
    if not all(pair.differs for pair in pairs):
        few = ", or too few patients to tell" if any(pair.differs is None for pair in pairs) else ""
        yield _mark("o", f"no difference shown{few}", COLOURS[0] if not coloured else INK, face="white")
    if any(row.published for row in rows):
        yield _mark("D", "published, of other images; a triangle: beyond the axis", MUTED, face="none")


def _mark(form: str, label: str, colour: str, *, face: str | None = None, size: float = 6) -> Line2D:
    return Line2D(
        [], [], color=colour, marker=form[-1], linestyle="-" if form.startswith("-") else "", label=label,
        markerfacecolor=face or colour, markersize=size,
    )  # fmt: skip


def _legend(figure: Figure, meanings: Iterator[Artist]) -> None:
    """Place the legend below the panels, in as many columns as fit."""
    handles = list(meanings)
    longest = max(len(str(handle.get_label())) for handle in handles)
    columns = max(1, min(len(handles), int(figure.get_figwidth() / (0.45 + 0.072 * longest))))
    figure.legend(handles=handles, loc="outside lower left", ncols=columns)


def _published_name(score: str) -> str:
    """The score without its region, as papers name none."""
    return score.rpartition("/")[2]

"""Figures of the fingerprints that sites send of their data before the first round, one for each histogram."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from ganseg_dist.federation.fingerprint.differences import Difference, subject
from ganseg_dist.federation.fingerprint.disclosure import Points
from ganseg_dist.federation.fingerprint.histograms import Axis, Fingerprint, Scale
from ganseg_dist.report.figures import DASHES, INK, MOST_NAMED, MUTED, SERIES, STYLE, canvas, shortened, svg
from ganseg_dist.report.labels import capitalised, joined
from ganseg_dist.report.training import Chart

SLOT = 0.13
"""Width of a bin apart from the scale, as a share of the scale's width."""

MOST_TICKS = 7
WIDTH, HEIGHT = 460.0, 250.0
LETTER, ROW = 6.9, 17.0
"""Width of a letter and height of a line of names, in pixels."""

TOGETHER = "all sites"


@dataclass(frozen=True, slots=True)
class Line:
    """The histogram of one site, or of all sites together."""

    name: str
    points: Points
    colour: str
    dashes: tuple[float, ...]
    width: float
    named: bool


def fingerprint_charts(
    total: Fingerprint, sites: Mapping[str, Fingerprint], site_differences: Sequence[Difference] = ()
) -> list[Chart]:
    """One chart for each histogram: a thin line a site and a bold one for all together, in percent of each line's sum.

    Every patient counts alike. Of many sites only those that stand out are named. A histogram without a patient on its
    scale, such as millimetres of pictures, is left out.

    Args:
        total: the fingerprint of all sites together.
        sites: each site's own fingerprint, where it may be shown; else none.
        site_differences: how the sites differ.
    """
    charts = []
    for name, axis in total.axes.items():
        if axis.scale is not None and not total.disclosed(name)[len(axis.apart) :].any():
            continue
        off = [difference for difference in site_differences if difference.histogram == name and difference.stands_out]
        lines = _lines(name, total, sites, {difference.site for difference in off})
        if not lines:
            continue
        title = capitalised(subject(name))
        figure = _histogram(axis, lines, per_patient=not name.startswith(("seen/", "raw/")), description=title)
        charts.append(Chart(title, figure, _caption(name, sites, off)))
    return charts


def _lines(name: str, total: Fingerprint, sites: Mapping[str, Fingerprint], off: set[str]) -> list[Line]:
    """The lines of the sites with data in this histogram; the sum comes last and so lies on top."""
    few = len(sites) <= MOST_NAMED
    lines = []
    for index, (site, fingerprint) in enumerate(sites.items()):
        named = few or site in off
        colour = SERIES[index % len(SERIES)] if named else MUTED
        dashes = DASHES[index // len(SERIES) % len(DASHES)]
        if fingerprint.disclosed(name).any():
            lines.append(Line(site, fingerprint.disclosed(name), colour, dashes, 1.6 if named else 0.8, named))
    if total.disclosed(name).any():
        lines.append(Line(TOGETHER, total.disclosed(name), INK, (), 3.2, named=True))
    return lines


def _caption(name: str, sites: Mapping[str, Fingerprint], off: Sequence[Difference]) -> str:
    silent = [site for site, fingerprint in sites.items() if not fingerprint.disclosed(name).any()]
    notes = [f"{joined(silent)} {'tells' if len(silent) == 1 else 'tell'} nothing here."] if silent else []
    notes += [f"Stands out: {difference.line()}." for difference in off]
    return " ".join(notes)


def _histogram(axis: Axis, lines: Sequence[Line], *, per_patient: bool, description: str) -> str:
    """Draw the bins apart from the scale on the left, each in a slot of its own, then the scale."""
    apart, (first, last) = _filled_apart(axis, lines), _filled_inner(axis, lines)
    slot = max(1.0, SLOT * (last - first))
    start = slot * len(apart) + (0.4 * slot if apart and last > first else 0)
    ticks = [(slot * (place + 0.5), axis.apart[bin_].replace(" ", "\n", 1)) for place, bin_ in enumerate(apart)]
    if axis.scale is not None:
        ticks += [(start + across, label) for across, label in _scale_ticks(axis.scale, first, last)]
    rows = _legend_rows([line for line in lines if line.named])
    top = 8 + ROW * len(rows)
    with mpl.rc_context(STYLE):
        below = ROW * any("\n" in label for _, label in ticks)
        figure, axes = canvas(WIDTH, HEIGHT + top + below, left=52, right=14, bottom=46 + below, top=top)
        for line in lines:
            shares = 100 * line.points / line.points.sum()
            dashes: Any = (0, line.dashes) if line.dashes else "-"
            for place, bin_ in enumerate(apart):
                ends = [slot * (place + 0.12), slot * (place + 0.88)]
                axes.plot(ends, [shares[bin_]] * 2, color=line.colour, linewidth=line.width, linestyle=dashes)
            if last > first:
                inner, edges = shares[len(axis.apart) :][first:last], start + np.arange(last - first + 1)
                axes.stairs(
                    inner, edges, baseline=None, color=line.colour, linewidth=line.width, linestyle=dashes
                )  # fmt: skip
        axes.set_xlim(0, start + last - first)
        axes.set_ylim(bottom=0)
        axes.set_xticks([across for across, _ in ticks], [label for _, label in ticks])
        axes.set_xlabel((axis.scale.unit or "exported value") if axis.scale is not None else "")
        axes.set_ylabel("share of the patients (%)" if per_patient else "share of the foreground (%)")
        axes.grid(axis="y", alpha=0.6)
        axes.set_axisbelow(True)
        _legend(axes, rows)
        return svg(figure, description)


def _filled_apart(axis: Axis, lines: Sequence[Line]) -> list[int]:
    """Indices of the non-empty bins apart from the scale; all of them where there is no scale."""
    stands = np.any([line.points[: len(axis.apart)] > 0 for line in lines], axis=0)
    return [bin_ for bin_ in range(len(axis.apart)) if stands[bin_] or axis.scale is None]


def _filled_inner(axis: Axis, lines: Sequence[Line]) -> tuple[int, int]:
    """The range of the scale's non-empty bins, widened by one bin at either end; (0, 0) where there are none."""
    filled = np.flatnonzero(np.any([line.points[len(axis.apart) :] > 0 for line in lines], axis=0))
    if axis.scale is None or not filled.size:
        return 0, 0
    return max(int(filled[0]) - 1, 0), min(int(filled[-1]) + 2, axis.scale.inner + 2)


def _scale_ticks(scale: Scale, first: int, last: int) -> list[tuple[float, str]]:
    """Labels at whole steps of the scale, with their distance in bins from the first shown bin's edge."""
    low, high = (scale.first + scale.width * (bin_ - 1) for bin_ in (first, last))
    whole = np.arange(np.ceil(low), np.floor(high) + 1)
    step = -(-len(whole) // MOST_TICKS)
    places: npt.NDArray[np.float64] = whole[whole % step == 0]
    return [(float((place - low) / scale.width), f"{scale.value(float(place)):g}") for place in places]


def _legend_rows(lines: Sequence[Line]) -> list[list[Line]]:
    """Names in rows that are no wider than the figure."""
    rows: list[list[Line]] = [[]]
    for line in lines:
        if rows[-1] and sum(map(_name_width, [*rows[-1], line])) > WIDTH - 60:
            rows.append([])
        rows[-1].append(line)
    return rows


def _legend(axes: Axes, rows: Sequence[Sequence[Line]]) -> None:
    for number, row in enumerate(rows):
        across, height = 0.0, ROW * (len(rows) - number) - 6
        for line in row:
            axes.annotate(
                f"● {shortened(line.name)}", (0, 1), xycoords="axes fraction", xytext=(across, height),
                textcoords="offset points", va="center", color=line.colour,
                weight="bold" if line.name == TOGETHER else "normal",
            )  # fmt: skip
            across += _name_width(line)


def _name_width(line: Line) -> float:
    return LETTER * (len(shortened(line.name)) + 4)

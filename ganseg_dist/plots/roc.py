"""How well scores separate two groups, and how reliable probabilities are: ROC curves, histograms, calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ganseg_dist.plots.style import PAGE, PAPER, for_page, for_paper, panels, unit_square

Point = tuple[float, float]
Numbers = npt.NDArray[np.float64]

LARGEST_DOT, SMALLEST_DOT = 18.0, 3.0
"""Diameters in pixels of dots whose area encodes a weight; the smallest is still visible."""


@for_page
def roc_chart(points: Sequence[Point], *, chosen: Point | None = None) -> Figure:
    """True against false positive rate, chance as a dashed diagonal, the calibrated threshold as a dot."""
    figure, axes = unit_square("false positive rate (1 − specificity)", "true positive rate (sensitivity)", PAGE.rule)
    axes.plot(*zip(*points, strict=True), color=PAGE.accent, linewidth=2.2)
    if chosen is not None:
        axes.plot(*chosen, "o", color=PAGE.ink, markersize=7)
        side = "left" if chosen[0] < 0.55 else "right"
        axes.annotate("chosen threshold", chosen, xytext=(10, -14), textcoords="offset points", ha=side)
    return figure


@for_paper
def threshold_figure(
    title: str,
    area: str,
    rates: Sequence[Point],
    groups: Mapping[str, Numbers],
    thresholds: Mapping[float, Point],
    calibrated: float | None,
) -> Figure:
    """The ROC curve of realism with thresholds on it, and beside it histograms of each group's realism.

    Points are (false positive rate, sensitivity). The thresholds are those of Table 1 and the calibrated one, which was
    chosen on validation.
    """
    figure, (curve, spread) = panels(9, 4.4, 2)
    _draw_curve(curve, rates, thresholds, calibrated)
    curve.set_title(area)
    _draw_spread(spread, groups, [each for each in thresholds if each != calibrated], calibrated)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    return figure


def _draw_curve(
    axes: Axes, rates: Sequence[Point], thresholds: Mapping[float, Point], calibrated: float | None
) -> None:
    axes.plot(*zip(*rates, strict=True), color=PAPER.series[0])
    axes.plot([0, 1], [0, 1], color=PAPER.rule, linewidth=1, zorder=0, label="chance")
    places: dict[Point, list[float]] = {}
    for threshold, place in sorted(thresholds.items()):
        places.setdefault(place, []).append(threshold)
    for place, at in places.items():
        colour = PAPER.series[1 if calibrated in at else 0]
        axes.plot(*place, "o", color=colour)
        label = ", ".join(f"{threshold:.2g}" for threshold in at)
        axes.annotate(label, place, xytext=(6, -12), textcoords="offset points", color=colour)
    axes.plot([], [], "o", color=PAPER.series[0], label="threshold of Table 1")
    if calibrated is not None:
        axes.plot([], [], "o", color=PAPER.series[1], label="threshold chosen on validation")
    axes.set(xlabel="1 − specificity", ylabel="sensitivity", aspect="equal", ylim=(-0.08, 1.04))
    axes.legend(loc="lower right")


def _draw_spread(axes: Axes, groups: Mapping[str, Numbers], table: Sequence[float], calibrated: float | None) -> None:
    values = np.concatenate([*groups.values(), table])
    bins = np.linspace(values.min(), values.max(), 31).tolist()
    for (name, shares), colour in zip(groups.items(), (PAPER.series[0], PAPER.series[4]), strict=True):
        axes.hist(shares, bins, density=True, color=colour, alpha=0.5, label=f"{len(shares)} slices {name}")
    for number, threshold in enumerate(table):
        label = None if number else "thresholds of Table 1"
        axes.axvline(threshold, color=PAPER.muted, linewidth=1, linestyle="--", label=label)
    if calibrated is not None:
        axes.axvline(calibrated, color=PAPER.series[1], linewidth=1.4, label="chosen on validation")
    axes.set(xlabel="realism", ylabel="density")
    axes.legend(frameon=True, facecolor="white", edgecolor="none", framealpha=0.9)


@dataclass(frozen=True, slots=True)
class Dot:
    """A point whose area is proportional to its weight."""

    x: float
    y: float
    weight: int


@for_page
def calibration_chart(dots: Sequence[Dot], *, note: str) -> Figure:
    """Accuracy against confidence, both in [0, 1], the dashed diagonal where they agree, and the text `note`."""
    labels = ("confidence (highest probability)", "accuracy (share that is right)")
    figure, axes = unit_square(*labels, diagonal=PAGE.muted)
    heaviest = max((dot.weight for dot in dots), default=1)
    for dot in dots:
        diameter = max(LARGEST_DOT * (dot.weight / heaviest) ** 0.5, SMALLEST_DOT)
        axes.plot(
            [dot.x], [dot.y], "o", color=PAGE.accent, alpha=0.75, markersize=diameter, markeredgewidth=0, clip_on=False
        )
    axes.annotate(note, (0.03, 0.93), xycoords="axes fraction", color=PAGE.ink)
    return figure

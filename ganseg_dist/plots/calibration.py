"""Reliability of a classifier's probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from ganseg_dist.plots.axes import unit_square
from ganseg_dist.plots.style import PAGE, for_page

LARGEST_DOT, SMALLEST_DOT = 18.0, 3.0
"""Diameters in pixels of dots whose area encodes a weight; the smallest is still visible."""


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

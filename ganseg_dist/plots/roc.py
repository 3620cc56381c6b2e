"""ROC curves."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from ganseg_dist.plots.axes import unit_square
from ganseg_dist.plots.style import PAGE, for_page


@for_page
def roc_chart(points: Sequence[tuple[float, float]], *, chosen: tuple[float, float] | None = None) -> Figure:
    """True against false positive rate, chance as a dashed diagonal, the calibrated threshold as a dot."""
    figure, axes = unit_square("false positive rate (1 − specificity)", "true positive rate (sensitivity)", PAGE.rule)
    axes.plot(*zip(*points, strict=True), color=PAGE.accent, linewidth=2.2)
    if chosen is not None:
        axes.plot(*chosen, "o", color=PAGE.ink, markersize=7)
        side = "left" if chosen[0] < 0.55 else "right"
        axes.annotate("chosen threshold", chosen, xytext=(10, -14), textcoords="offset points", ha=side)
    return figure

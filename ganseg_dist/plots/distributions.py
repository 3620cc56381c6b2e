"""Distributions of values by group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from ganseg_dist.plots.axes import named_rows
from ganseg_dist.plots.style import PAGE, for_page


@for_page
def strip_chart(groups: Mapping[str, Sequence[float]], *, axis: str) -> Figure:
    """One row a group, one dot a case, its median as an upright line; scores in [0, 1]."""
    names = [f"{name} ({len(values)})" for name, values in groups.items()]
    row_height = 34 if len(groups) < 8 else 24
    figure, axes = named_rows(names, range(len(names)), size=(520, row_height * len(names)))
    for row, values in enumerate(groups.values()):
        # Steps of the golden ratio fill the row's height evenly, whatever the number of cases.
        lift = (np.arange(len(values)) * 0.618 % 1 - 0.5) * 0.5
        axes.plot(sorted(values), row + lift, "o", color=PAGE.accent, alpha=0.55, markersize=5, markeredgewidth=0)
        axes.plot([float(np.median(values))] * 2, [row - 0.36, row + 0.36], color=PAGE.ink, linewidth=2)
    axes.set(xlim=(-0.02, 1.02), ylim=(len(names) - 0.5, -0.5), xlabel=axis)
    return figure

"""Histograms of several groups over the same bins, as lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from ganseg_dist.plots.style import DASHES, LINE, PAGE, canvas, for_page, legend_above, legend_rows

SLOT = 0.13
"""Width of a bin apart from the scale, as a share of the scale's width."""

WIDTH, HEIGHT, LEFT = 460.0, 250.0, 52.0


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
        """The line's style; a colour that comes again is dashed."""
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
    """Bins apart from the scale on the left, each in a slot of its own, then the scale; later histograms lie on top.

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

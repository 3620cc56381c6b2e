"""Parallel coordinates: an axis per field, a line per row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ganseg_dist.plots.style import PAPER, for_paper, panels

COLOUR_MAP = "viridis_r"
"""Dark is better, as light lines would vanish on white."""


def spans_decades(values: Sequence[float]) -> bool:
    """Whether all values are positive and span more than one decade, so that a logarithmic axis is better."""
    return min(values) > 0 and max(values) / min(values) > 10


@for_paper
def parallel_figure(
    title: str, names: Sequence[str], rows: Sequence[Mapping[str, Any]], goodness: Sequence[float], best: int
) -> Figure:
    """The higher a row's goodness, the darker its line; the best is in colour. A line has a gap where a field lacks.

    Args:
        names: fields of the axes, each of which some row has.
        best: index of the best row.
    """
    figure, (axes,) = panels(max(6.4, 1.25 * len(names)), 4.2)
    low, high = min(goodness), max(goodness)
    norm = mpl.colors.Normalize(low, high if high > low else low + 1)
    scales = [_Scale([row[name] for row in rows if name in row]) for name in names]
    for index in np.argsort(goodness).tolist():  # the best lie on top
        row = rows[index]
        heights = [
            scale.height(row[name]) if name in row else np.nan for name, scale in zip(names, scales, strict=True)
        ]
        colour, width, alpha = mpl.colormaps[COLOUR_MAP](norm(goodness[index])), 1.0, 0.75
        if index == best:
            colour, width, alpha = PAPER.series[1], 2.4, 1.0
        axes.plot(range(len(names)), heights, color=colour, linewidth=width, alpha=alpha, marker="o", markersize=3)
    _draw_axes(axes, names, scales)
    axes.set_title(title)
    return figure


class _Scale:
    """One field's axis from 0 to 1: logarithmic where its values span decades, evenly spaced for categories."""

    def __init__(self, values: Sequence[Any]) -> None:
        self.categories = None if all(type(value) in (int, float) for value in values) else list(dict.fromkeys(values))
        numbers = [] if self.categories is not None else [float(value) for value in values]
        self.log = bool(numbers) and spans_decades(numbers)
        ends = [self._number(value) for value in values]
        self.low, self.high = min(ends), max(ends)

    def height(self, value: Any) -> float:
        """Position of a value on the axis, from 0 to 1; 0.5 where all values are equal."""
        return (self._number(value) - self.low) / (self.high - self.low) if self.high > self.low else 0.5

    def marks(self) -> list[tuple[float, str]]:
        """Height and label of both ends of the axis, or of every category."""
        if self.categories is not None:
            return [(self.height(word), "none" if word is None else str(word)) for word in self.categories]
        ends = (self.low, self.high) if self.high > self.low else (self.low,)
        return [(self.height(self._from_number(end)), f"{self._from_number(end):.3g}") for end in ends]

    def _number(self, value: Any) -> float:
        if self.categories is not None:
            return float(self.categories.index(value))
        return float(np.log10(value)) if self.log else float(value)

    def _from_number(self, number: float) -> float:
        return float(10**number) if self.log else number


def _draw_axes(axes: Axes, names: Sequence[str], scales: Sequence[_Scale]) -> None:
    axes.set_xlim(-0.3, len(names) - 0.5)
    axes.set_ylim(-0.08, 1.08)
    for place, scale in enumerate(scales):
        axes.axvline(place, color=PAPER.muted, linewidth=0.8, zorder=0)
        for height, words in scale.marks():
            axes.annotate(
                words, (place, height), xytext=(4, 0), textcoords="offset points", fontsize=7.5, va="center",
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 0.8},
            )  # fmt: skip
    axes.set_xticks(range(len(names)), [name.replace(".", ".\n", 1) for name in names], fontsize=7.5)
    axes.tick_params(axis="x", length=0)
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)

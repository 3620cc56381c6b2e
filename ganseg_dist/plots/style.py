"""The style of all charts: colours, letters, lines, and the size and margins of a figure.

A chart is drawn for the page or for paper. The page's is an SVG whose colours are stand-ins, for which `save.svg` puts
the page's own (`--figure-*` of report.css), so that the same chart serves light, dark and print; one user unit is one
CSS pixel. Paper's is a PNG on white.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class Palette:
    """Colours by what they are for; `series` tells lines apart."""

    ink: str
    muted: str
    rule: str
    shade: str
    accent: str
    series: tuple[str, ...]

    def cycle(self, index: int) -> str:
        """The colour of a series; beyond the last, colours come again."""
        return self.series[index % len(self.series)]


PAGE = Palette(
    "#0100a1", "#0100a2", "#0100a3", "#0100a4", "#0100a5",
    ("#0200b1", "#0200b2", "#0200b3", "#0200b4", "#0200b5", "#0200b6"),
)  # fmt: skip
PAPER = Palette(
    "#1b2126", "#6b7680", "#d0d6da", "#eef2f4", "#0072b2",
    ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"),
)  # fmt: skip
"""The series are Okabe and Ito's, distinct for every kind of colour vision."""

DASHES: tuple[tuple[float, ...], ...] = ((), (5, 2), (1.5, 1.5), (7, 2, 1.5, 2))


def _settings(text: str, edge: str, label: str, rule: str, size: float, **more: Any) -> Mapping[Any, Any]:
    return {
        "text.parse_math": False,
        "text.color": text,
        "font.size": size,
        "axes.labelsize": size,
        "axes.titlesize": size,
        "axes.titlelocation": "left",
        "axes.edgecolor": edge,
        "axes.labelcolor": label,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "xtick.color": edge,
        "ytick.color": edge,
        "xtick.labelcolor": label,
        "ytick.labelcolor": label,
        "grid.color": rule,
        "grid.linewidth": 0.6,
        "legend.frameon": False,
        "legend.fontsize": size - 0.5,
        "lines.linewidth": 1.8,
    } | more


for_page = mpl.rc_context(
    {
        **_settings(PAGE.ink, PAGE.rule, PAGE.muted, PAGE.rule, 12),
        "svg.fonttype": "none",
        "axes.facecolor": "none",
        "figure.facecolor": "none",
        "figure.dpi": 72,
        "grid.alpha": 0.6,
    }
)
"""Decorator of functions that draw or save a chart for the page."""

for_paper = mpl.rc_context({**_settings(PAPER.ink, PAPER.muted, PAPER.ink, PAPER.rule, 9), "figure.dpi": 150})
"""Decorator of functions that draw or save a chart for paper."""


def canvas(width: float, height: float, *, left: float, right: float, bottom: float, top: float) -> tuple[Figure, Axes]:
    """A figure of width x height pixels whose axes leave these margins in pixels."""
    figure = Figure(figsize=(width / 72, height / 72))
    box = (left / width, bottom / height, 1 - (left + right) / width, 1 - (bottom + top) / height)
    return figure, figure.add_axes(box)


def panels(width: float, height: float, columns: int = 1, *, share_y: bool = False) -> tuple[Figure, list[Axes]]:
    """A figure of width x height inches with axes side by side, laid out around their labels."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(1, columns, sharey=share_y, squeeze=False)[0])

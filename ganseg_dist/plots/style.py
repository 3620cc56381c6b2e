"""The style of all charts, and what they share: levels with rules, named rows, a square of two shares, a legend above.

A chart is drawn for the page or for paper. The page's is an SVG whose colours are placeholders, which `save.svg`
replaces by the page's (`--figure-*` of report.css), so that the same chart serves light, dark and print; one user unit
is one CSS pixel. Paper's is a PNG on white.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

LETTER, LINE = 7.2, 17.0
"""Width of a letter and height of a line of names, in pixels of the page."""

LONGEST_LINE = 30
"""Characters in each of the two lines of a row's label."""

LONGEST_NAME = 18
"""Characters of a name at a line's end or in a legend."""

Entry = tuple[str, str]
"""A name in a legend and its colour."""


@dataclass(frozen=True, slots=True)
class Palette:
    """Colours by purpose; `series` distinguishes lines."""

    ink: str
    muted: str
    rule: str
    shade: str
    accent: str
    series: tuple[str, ...]

    def cycle(self, index: int) -> str:
        """The colour of a series; beyond the last, colours repeat."""
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


def plain_levels(axes: Axes) -> None:
    """Few levels with rules behind the lines, and each tick with its whole value: no 1e-6+3.612e-2 above the axis."""
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.ticklabel_format(axis="y", style="plain", useOffset=False)
    axes.grid(axis="y")


def bare_rows(axes: Axes) -> None:
    """Rows across upright rules, without an upright axis."""
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")


def named_rows(
    names: Sequence[str], places: Sequence[float], *, size: tuple[float, float], top: float = 10
) -> tuple[Figure, Axes]:
    """A canvas with a named row at each place, whose `size` is without the margins above and below.

    A name that is too long takes two lines.
    """
    labels = [in_two_lines(name) for name in names]
    left = 16 + LETTER * max(len(line) for label in labels for line in label.splitlines())
    figure, axes = canvas(size[0], size[1] + 44 + top, left=left, right=14, bottom=44, top=top)
    axes.set_yticks(places, labels)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    bare_rows(axes)
    return figure, axes


def unit_square(x_label: str, y_label: str, diagonal: str) -> tuple[Figure, Axes]:
    """A square canvas of two shares in [0, 1] with a dashed diagonal in the colour `diagonal`."""
    figure, axes = canvas(330, 330, left=50, right=12, bottom=44, top=10)
    axes.plot([0, 1], [0, 1], color=diagonal, linewidth=1, dashes=(4, 3))
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal", xlabel=x_label, ylabel=y_label)
    return figure, axes


def legend_rows(entries: Sequence[Entry], width: float) -> list[list[Entry]]:
    """Entries in rows that are no wider than `width` pixels."""
    rows: list[list[Entry]] = [[]]
    for entry in entries:
        if rows[-1] and sum(map(_entry_width, [*rows[-1], entry])) > width:
            rows.append([])
        rows[-1].append(entry)
    return rows


def legend_above(axes: Axes, rows: Sequence[Sequence[Entry]], left: float, bold: str = "") -> None:
    """Rows of names after coloured dots at the figure's top, from `left` pixels on; the name `bold` is bold."""
    for number, row in enumerate(rows):
        across = left
        for name, colour in row:
            axes.annotate(
                f"● {shortened(name)}", (0, 1), xycoords="figure fraction", xytext=(across, -14 - LINE * number),
                textcoords="offset points", va="center", color=colour, weight="bold" if name == bold else "normal",
            )  # fmt: skip
            across += _entry_width((name, colour))


def _entry_width(entry: Entry) -> float:
    return LETTER * (len(shortened(entry[0])) + 4)


def shortened(name: str) -> str:
    """The name cut to LONGEST_NAME characters, with an ellipsis."""
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def in_two_lines(label: str) -> str:
    """Broken between words, else after punctuation, else anywhere; what two lines cannot hold is left out."""
    if len(label) <= LONGEST_LINE:
        return label
    match = re.match(rf"(.{{1,{LONGEST_LINE}}})(?<=[ ,._-])(.+)", label)
    first, rest = match.groups() if match else (label[:LONGEST_LINE], label[LONGEST_LINE:])
    return f"{first.rstrip()}\n{rest if len(rest) <= LONGEST_LINE else rest[: LONGEST_LINE - 1] + '…'}"

"""What charts share: levels with rules, named rows, a square of two shares, and a legend above the axes."""

from __future__ import annotations

import re
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ganseg_dist.plots.style import canvas

LETTER, LINE = 7.2, 17.0
"""Width of a letter and height of a line of names, in pixels of the page."""

LONGEST_LINE = 30
"""Characters in each of the two lines of a row's label."""

LONGEST_NAME = 18
"""Characters of a name at a line's end or in a legend."""

Entry = tuple[str, str]
"""A name in a legend and its colour."""


def plain_levels(axes: Axes) -> None:
    """Few levels with rules behind the lines, and each tick with its own value: no 1e-6+3.612e-2 above the axis."""
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
    """Rows of names after coloured dots at the figure's top, from `left` pixels on; the name `bold` stands out."""
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

"""Image planes as pixels with outlines of masks, and figures of them: a labelled grid, and a slice with outlines."""

from __future__ import annotations

import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from PIL import Image
from skimage.measure import find_contours

from ganseg_dist.plots.style import PAPER, for_paper

Plane = npt.NDArray[np.floating]
Mask = npt.NDArray[np.uint8] | npt.NDArray[np.bool_]
Pixels = npt.NDArray[np.uint8]

REGION_COLOURS = {"wt": "#56b4e9", "tc": "#e69f00", "et": "#f0e442"}
"""Sky blue, orange and yellow of Okabe and Ito: distinct for every kind of colour vision, and bright on grey."""

Letters = tuple[str, str] | None
"""The patient's side on the left and on the right, where they are known."""

DPI = 120
INCHES = 1.3
"""Side of a picture in a grid."""
FEWEST_COLUMNS = 6
"""Columns whose width a grid's title needs."""
PANEL_INCHES = 4.5
"""Width of the slice."""
MARGIN_INCHES = 0.3
"""For the slice's title above and the legend below."""


def outlines(mask: Mask) -> list[npt.NDArray[np.float64]]:
    """Closed outlines of a mask (H, W) as (N, 2) points x, y in pixels, 0 being the centre of the first pixel.

    Outlines that touch the border are closed along it.
    """
    padded = np.pad(np.asarray(mask, np.float64), 1)
    return [np.asarray(contour[:, ::-1] - 1, np.float64) for contour in find_contours(padded, 0.5)]


def outline_path(mask: Mask) -> str:
    """The outlines as an SVG path over a picture that spans (0, 0) to (W, H)."""
    return "".join("M" + "L".join(f"{x:g} {y:g}" for x, y in contour[:-1] + 0.5) + "Z" for contour in outlines(mask))


def grey(plane: Plane, *, like: Plane | None = None) -> Pixels:
    """A plane (H, W) in [-1, 1] as 8-bit grey, -1 black and the 99.8th percentile of `like` (of itself) white."""
    white = max(float(np.percentile(plane if like is None else like, 99.8)), -0.9)
    return np.asarray(np.clip((plane + 1) / (white + 1), 0, 1) * 255, np.uint8)


def rgb(image: Plane) -> Pixels:
    """A colour picture (3, H, W) in [-1, 1] as 8-bit (H, W, 3)."""
    return np.asarray(np.clip((np.moveaxis(image, 0, -1) + 1) / 2, 0, 1) * 255, np.uint8)


def heat(plane: Plane, low: float, high: float) -> Pixels:
    """A plane (H, W) as 8-bit (H, W, 3), dark at `low` and bright at `high`."""
    scaled = np.clip((plane - low) / max(high - low, 1e-9), 0, 1)
    return np.asarray(mpl.colormaps["inferno"](scaled)[..., :3] * 255, np.uint8)


def png(pixels: Pixels) -> bytes:
    """8-bit pixels (H, W) or (H, W, 3) as a PNG."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", optimize=True)
    return stream.getvalue()


@dataclass(frozen=True, slots=True)
class GridRow:
    """Pictures beside each other, laid out already."""

    name: str
    pictures: Sequence[Pixels]
    letters: Letters


@for_paper
def image_grid(
    title: str, columns: Sequence[str], rows: Sequence[GridRow], note: str, warned: Collection[str] = ()
) -> Figure:
    """Rows of pictures with a title above each column, in colour where it is in `warned`, and a note below."""
    size = (INCHES * max(len(columns), FEWEST_COLUMNS) + 1.2, INCHES * len(rows) + 1.0)
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    panels: npt.NDArray[np.object_] = figure.subplots(len(rows), len(columns), squeeze=False)
    for row, line in zip(rows, panels, strict=True):
        for axes, pixels in zip(line, row.pictures, strict=True):
            axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            _mark_sides(axes, row.letters, fontsize=7)
        line[0].set_ylabel(row.name, rotation=0, ha="right", va="center")
    for axes, column in zip(panels[0], columns, strict=True):
        colour = PAPER.series[1] if column in warned else PAPER.ink
        axes.set_title(column, fontsize=8, color=colour, loc="center")
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    figure.supxlabel(note, x=0.01, ha="left", fontsize=8, color=PAPER.muted)
    return figure


@for_paper
def outline_figure(
    title: str,
    caption: str,
    picture: npt.NDArray[np.floating],
    outlined: Sequence[tuple[str, str, Mask]],
    letters: Letters,
    *,
    aspect: float,
) -> Figure:
    """The picture alone, and beside it with outlines that the legend names.

    Args:
        picture: (H, W) or (H, W, 3) in [0, 1], laid out already, as the masks (H, W).
        outlined: name, colour and mask of each outline.
        aspect: height by width of the picture's content.
    """
    tall = PANEL_INCHES * aspect
    whole = tall + 2 * MARGIN_INCHES
    figure = Figure(figsize=(2 * PANEL_INCHES, whole), dpi=DPI, facecolor="black")
    panels = [figure.add_axes((left, MARGIN_INCHES / whole, 0.5, tall / whole)) for left in (0.0, 0.5)]
    for axes in panels:
        axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest", aspect="auto")
        axes.set_axis_off()
        _mark_sides(axes, letters, fontsize=9)
    for _, colour, mask in outlined:
        for contour in outlines(mask):
            panels[1].plot(contour[:, 0], contour[:, 1], color=colour, linewidth=1.4)
    panels[1].set(xlim=panels[0].get_xlim(), ylim=panels[0].get_ylim())
    figure.text(0.01, 0.985, title, color="white", va="top")
    figure.text(0.99, 0.985, caption, color="white", va="top", ha="right")
    handles = [Line2D([], [], color=colour, label=name) for name, colour, _ in outlined]
    figure.legend(handles=handles, loc="lower center", ncols=len(handles), labelcolor="white", fontsize=9, borderpad=0)
    return figure


def _mark_sides(axes: Axes, letters: Letters, fontsize: float) -> None:
    for letter, x, anchor in zip(letters or (), (0.02, 0.98), ("left", "right"), strict=False):
        text = axes.text(x, 0.99, letter, transform=axes.transAxes, ha=anchor, va="top", fontsize=fontsize)
        text.set(color="white", path_effects=[withStroke(linewidth=2, foreground="black")])

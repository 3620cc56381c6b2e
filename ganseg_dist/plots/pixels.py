"""Image planes as pixels: grey, colour, heat, and outlines of masks over them."""

from __future__ import annotations

import io

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from PIL import Image
from skimage.measure import find_contours

Plane = npt.NDArray[np.floating]
Mask = npt.NDArray[np.uint8] | npt.NDArray[np.bool_]
Pixels = npt.NDArray[np.uint8]

REGION_COLOURS = {"wt": "#56b4e9", "tc": "#e69f00", "et": "#f0e442"}
"""Sky blue, orange and yellow of Okabe and Ito: distinct for every kind of colour vision, and bright on grey."""


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

"""A picture file's pixels: grey, colours, or what its colours stand for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ganseg_dist.data.cohort import Source
from ganseg_dist.data.formats import Volume, as_float, decoding, is_lossy, quiet
from ganseg_dist.errors import DataError

BRIGHTEST = 255
"""The largest value of a picture's 8 bits."""

COLOURFUL = 1 / 16
"""How far apart a pixel's channels must lie, as a share of their range, to be a colour: JPEG tints greys by less."""

COLOURFUL_SHARE = 0.05
"""Share of such pixels in a picture in colour; a coloured stamp on a grey one takes less."""


def shows_colour(path: Path) -> bool:
    """Whether a picture is seen in colour: many are stored as red, green and blue and are grey all the same.

    Raises DataError when it cannot be read.
    """
    plane = load_picture(path, in_colour=True)[::2, ::2]  # enough pixels to see it by
    if not _has_colours(plane):
        return False
    reach = np.ptp(plane[..., :3].astype(np.float32), axis=2)
    largest = np.iinfo(plane.dtype).max if np.issubdtype(plane.dtype, np.integer) else 1.0
    return bool((reach > COLOURFUL * largest).mean() > COLOURFUL_SHARE)


def colour_code(red: int, green: int, blue: int) -> int:
    """0xRRGGBB of channels in 0..255."""
    return red << 16 | green << 8 | blue


def colour_channels(code: int) -> tuple[int, int, int]:
    """The inverse of `colour_code`: red, green and blue."""
    return code >> 16, code >> 8 & 255, code & 255


def wants_colours(source: Source) -> bool:
    """Whether a source needs red, green and blue where the file stores a palette or inks."""
    return source.channel is not None or source.reads is not None


def load_picture(path: Path, *, in_colour: bool) -> npt.NDArray[Any]:
    """(rows, columns) or (rows, columns, channels); in_colour: colours where the file stores a palette or inks."""
    import tifffile
    from PIL import Image

    with decoding(path, "picture"):
        if path.suffix.lower() in (".tif", ".tiff"):
            with quiet("tifffile"):  # it logs what it then raises, or leaves out without an error
                pages = np.asarray(tifffile.imread(path))
            if not pages.size:
                raise ValueError("it holds no page; the file was cut off")
            return pages
        with Image.open(path) as picture:
            stores_others = picture.mode in ("P", "PA", "CMYK", "YCbCr", "LAB", "HSV")
            return np.asarray(picture.convert("RGB") if in_colour and stores_others else picture)


def plane_of(file: Path, plane: npt.NDArray[Any], source: Source) -> Volume:
    """The one value a pixel that the source asks for, (rows, columns)."""
    if source.reads is not None:
        with decoding(file, "picture"):
            return _read(file, plane, source.reads)
    channel = source.channel or 0
    with decoding(file, "picture"):
        if plane.ndim == 2:
            return as_float(plane)
        if plane.ndim == 3 and channel < plane.shape[2]:
            return as_float(plane[..., channel])
    raise DataError(f"{file}: is an array of {plane.shape}, has no channel {channel}; channels count from 0")


def _read(file: Path, plane: npt.NDArray[Any], reads: str) -> Volume:
    """`Source.reads` of a picture, with or without colours, with or without transparency."""
    if plane.ndim not in (2, 3):
        raise DataError(f"{file}: is an array of {plane.shape}; save it as a 2-D picture")
    grey = plane if plane.ndim == 2 else plane[..., 0]
    red, green, blue = (plane[..., channel] if _has_colours(plane) else grey for channel in range(3))
    if reads == "luminance":
        # ITU-R BT.601 luma; equal channels give their own value back.
        luma = 0.299 * red + 0.587 * green + 0.114 * blue
        return np.where((red == green) & (green == blue), red, luma).astype(np.float32)
    if reads == "not black":
        brightest = np.maximum(np.maximum(red, green), blue)
        return np.asarray(brightest > (BRIGHTEST / 2 if is_lossy(file) else 0), np.float32)
    # colour_code, for whole planes: float32 holds its 24 bits exactly.
    return np.asarray(red * np.float32(1 << 16) + green * np.float32(1 << 8) + blue, np.float32)


def _has_colours(plane: npt.NDArray[Any]) -> bool:
    return plane.ndim == 3 and plane.shape[2] >= 3

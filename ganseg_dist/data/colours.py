"""How a picture's colours are read: as one channel, as luminance, or as the structures of a mask."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ganseg_dist.data.cohort import Source
from ganseg_dist.data.formats import Volume, as_float, decoding
from ganseg_dist.data.levels import bright_half, whole_numbers
from ganseg_dist.data.picture import BRIGHTEST, Pixels, is_lossy, load_picture
from ganseg_dist.errors import DataError

COLOURFUL = 1 / 16
"""How far apart a pixel's channels must lie, as a share of their range, to be a colour: JPEG tints greys by less."""

COLOURFUL_SHARE = 0.05
"""Share of such pixels in a picture in colour; a coloured stamp on a grey one takes less."""


def shows_colour(path: Path) -> bool:
    """Whether a picture looks coloured: many are stored as red, green and blue and yet are grey.

    Raises DataError when it cannot be read.
    """
    plane = load_picture(path)[::2, ::2]  # a quarter of the pixels is enough to judge by
    if plane.ndim == 2:
        return False
    reach = np.ptp(np.stack(_colours(path, plane)).astype(np.float32), axis=0)
    largest = np.iinfo(plane.dtype).max if np.issubdtype(plane.dtype, np.integer) else 1.0
    return bool((reach > COLOURFUL * largest).mean() > COLOURFUL_SHARE)


def colour_code(red: int, green: int, blue: int) -> int:
    """0xRRGGBB of channels in 0..255."""
    return red << 16 | green << 8 | blue


def colour_channels(code: int) -> tuple[int, int, int]:
    """The inverse of `colour_code`: red, green and blue."""
    return code >> 16, code >> 8 & 255, code & 255


def image_plane(file: Path, pixels: Pixels, source: Source) -> Volume:
    """(rows, columns): the channel that the source names, or the luminance where it names none."""
    with decoding(file, "picture"):
        if source.channel is not None or pixels.ndim == 2:
            return _channel(file, pixels, source.channel or 0)
        red, green, blue = _colours(file, pixels)
        # ITU-R BT.601 luma; equal channels give their own value back.
        luma = 0.299 * red + 0.587 * green + 0.114 * blue
        return np.where((red == green) & (green == blue), red, luma).astype(np.float32)


def mask_plane(file: Path, pixels: Pixels, source: Source) -> Volume:
    """(rows, columns): 1 where a mask is not black, its colours as 0xRRGGBB, or its values, as `source.reads` says.

    A JPEG's bright half is 255, unless its colours count. Raises DataError for values that are no whole numbers.
    """
    with decoding(file, "picture"):
        pixels = whole_numbers(file, pixels)
        if source.reads == "colour code":  # on whole planes at once; float32 holds 24 bits exactly
            red, green, blue = _colours(file, pixels)
            return np.asarray(red * np.float32(1 << 16) + green * np.float32(1 << 8) + blue, np.float32)
        if source.channel is not None:
            values = _channel(file, pixels, source.channel)
        else:
            values = as_float(np.maximum.reduce(_colours(file, pixels)))
        if is_lossy(file):
            values = np.where(bright_half(file, values), np.float32(BRIGHTEST), np.float32(0))
        return (values > 0).astype(np.float32) if source.reads == "not black" else values


def _channel(file: Path, pixels: Pixels, channel: int) -> Volume:
    """One channel. A picture in shades of grey is returned whatever the channel's number."""
    if pixels.ndim == 2:
        return as_float(pixels)
    if channel < pixels.shape[2]:
        return as_float(pixels[..., channel])
    raise DataError(f"{file}: is an array of {pixels.shape}, has no channel {channel}; channels count from 0")


def _colours(file: Path, pixels: Pixels) -> tuple[Pixels, Pixels, Pixels]:
    """Red, green and blue, each (rows, columns); three times the same plane for a picture in shades of grey."""
    if pixels.ndim == 2:
        return pixels, pixels, pixels
    if pixels.shape[2] != 3:
        raise DataError(f"{file}: has {pixels.shape[2]} channels; name one of them in a manifest, as in FILE#0")
    return pixels[..., 0], pixels[..., 1], pixels[..., 2]

"""How a picture's colours are read: as one channel, or as luminance."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ganseg_dist.data.cohort import Source
from ganseg_dist.data.grid import Volume, as_float
from ganseg_dist.data.listing import decoding
from ganseg_dist.data.picture import Pixels, load_picture
from ganseg_dist.errors import DataError

COLOURFUL = 1 / 16
"""How far apart a pixel's channels must lie, as a share of their range, to be a colour: JPEG tints greys by less."""

COLOURFUL_SHARE = 0.05
"""Share of such pixels in a picture in colour; a coloured stamp on a grey one takes less."""


def shows_colour(path: Path) -> bool:
    """Whether a picture is coloured: many stored in red, green and blue are grey. Raises DataError if unreadable."""
    plane = load_picture(path)[::2, ::2]  # a quarter of the pixels is enough
    if plane.ndim == 2:
        return False
    reach = np.ptp(np.stack(split_colours(path, plane)).astype(np.float32), axis=0)
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
            return channel_plane(file, pixels, source.channel or 0)
        red, green, blue = split_colours(file, pixels)
        # ITU-R BT.601 luma; equal channels give their own value back.
        luma = 0.299 * red + 0.587 * green + 0.114 * blue
        return np.where((red == green) & (green == blue), red, luma).astype(np.float32)


def channel_plane(file: Path, pixels: Pixels, channel: int) -> Volume:
    """One channel. A picture in shades of grey is returned for any channel number."""
    if pixels.ndim == 2:
        return as_float(pixels)
    if channel < pixels.shape[2]:
        return as_float(pixels[..., channel])
    raise DataError(f"{file}: is an array of {pixels.shape}, has no channel {channel}; channels count from 0")


def split_colours(file: Path, pixels: Pixels) -> tuple[Pixels, Pixels, Pixels]:
    """Red, green and blue, each (rows, columns); three times the same plane for a picture in shades of grey."""
    if pixels.ndim == 2:
        return pixels, pixels, pixels
    if pixels.shape[2] != 3:
        raise DataError(f"{file}: has {pixels.shape[2]} channels; name one of them in a manifest, as in FILE#0")
    return pixels[..., 0], pixels[..., 1], pixels[..., 2]

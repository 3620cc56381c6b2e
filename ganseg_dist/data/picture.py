"""A picture file's pixels as a viewer displays them: upright, in its colours, and nothing where it is transparent."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image, ImageOps, UnidentifiedImageError

from ganseg_dist.data.listing import decoding, is_picture, quiet
from ganseg_dist.errors import DataError
from ganseg_dist.files import open_regular

Pixels = npt.NDArray[Any]

BRIGHTEST = 255
"""The largest value of a picture's 8 bits."""

TIFF_SUFFIXES = (".tif", ".tiff")

LOSSY_COMPRESSIONS = ("jpeg", "tiff_jpeg", "webp")
"""Pillow's names for compressions of a TIFF that change its values."""

WITHOUT_FRAMES = ("MPO", "TIFF")
"""Formats whose further pictures are no animation: variants in a JPEG, and pages in a TIFF (see `_deep_tiff`)."""

DEFLATE = {tifffile.COMPRESSION.ADOBE_DEFLATE, tifffile.COMPRESSION.DEFLATE}
ALPHA = {tifffile.EXTRASAMPLE.ASSOCALPHA, tifffile.EXTRASAMPLE.UNASSALPHA}

HALF_OPAQUE = 128

ORIENTATION = 0x0112
"""The EXIF and TIFF tag for how a picture is turned and mirrored for display; 1 is upright."""


def is_lossy(path: Path) -> bool:
    """Whether the file's compression blurs edges, whatever its suffix. Raises DataError."""
    with _opened_header(path) as picture:
        return picture is not None and (
            picture.format in ("JPEG", "MPO") or picture.info.get("compression") in LOSSY_COMPRESSIONS
        )


def is_partly_transparent(path: Path) -> bool:
    """Whether some pixels are less than half opaque. Raises DataError."""
    with _opened_header(path) as picture:
        if picture is None or not picture.has_transparency_data:
            return False
        return bool((np.asarray(picture.convert("RGBA").getchannel("A")) < HALF_OPAQUE).any())


def orientation(path: Path) -> int:
    """EXIF orientation, 1 to 8: how the stored pixels are turned and mirrored for display. Raises DataError."""
    with _opened_header(path) as picture:
        return 1 if picture is None else int(picture.getexif().get(ORIENTATION, 1))


@contextmanager
def _opened_header(path: Path) -> Iterator[Image.Image | None]:
    """A picture whose header is read; None for a TIFF that Pillow has no mode for."""
    with decoding(path, "picture"), _quiet():
        try:
            picture = Image.open(path)
        except UnidentifiedImageError:
            yield None
            return
        with picture:
            yield picture


def load_picture(path: Path, *, is_mask: bool = False, by_value: bool = False) -> Pixels:
    """An image as displayed on black: (rows, columns), or (rows, columns, channels) of red, green and blue or more.

    Values are as stored, in 8 bits or more. A mask is 0 wherever it is less than half opaque. By value, it holds the
    numbers of a palette's colours, and 0 and 1 for one bit, in one channel; else the colours themselves.

    Raises DataError naming a file that is no readable picture, or several.
    """
    with decoding(path, "picture"), _quiet():
        if path.suffix.lower() in TIFF_SUFFIXES and (deep := _deep_tiff(path)) is not None:
            return deep
        # From a stream: given a name, Pillow memory-maps uncompressed TIFFs and scrambles those that it turns.
        with open_regular(path) as stream:
            _verify(path, stream)
            with Image.open(stream) as stored:
                if stored.format not in WITHOUT_FRAMES and getattr(stored, "is_animated", False):
                    raise DataError(f"{path}: is animated; save the frame that is meant as a picture")
                picture = ImageOps.exif_transpose(stored)
        if picture.mode == "La":  # greys multiplied by alpha; Pillow converts them to LA alone
            picture = picture.convert("LA")
        displayed = _by_value(picture) if by_value else _in_colours(picture)
        if displayed.mode.startswith("I;16"):
            pixels, transparent_value = np.asarray(displayed), picture.info.get("transparency")
            return pixels if transparent_value is None else np.where(pixels == transparent_value, 0, pixels)
        if picture.has_transparency_data:
            alpha = picture.convert("RGBA").getchannel("A")
            if is_mask:
                alpha = alpha.point([BRIGHTEST * (level >= HALF_OPAQUE) for level in range(BRIGHTEST + 1)])
            displayed = Image.composite(displayed, Image.new(displayed.mode, displayed.size), alpha)
        return np.asarray(displayed)


def _verify(path: Path, stream: BufferedReader) -> None:
    """Compare a PNG's checksums, which Pillow does not do while decoding.

    Raises SyntaxError where they differ, ValueError where the content is no picture, DataError where the name is not
    a picture's either.
    """
    try:
        with Image.open(stream) as stored:
            if stored.format == "PNG":
                stored.verify()
    except UnidentifiedImageError:
        if not is_picture(path):
            raise DataError(f"{path}: is neither NIfTI (.nii, .nii.gz) nor a picture; convert it to one") from None
        raise ValueError("it does not begin like a picture") from None
    stream.seek(0)


def _in_colours(picture: Image.Image) -> Image.Image:
    """Colours or greys of a palette, inks or one bit; without alpha."""
    if picture.mode in ("1", "LA"):
        return picture.convert("L")
    if picture.mode in ("P", "PA"):
        return picture.convert("RGB").convert("L") if _is_palette_grey(picture) else picture.convert("RGB")
    return picture.convert("RGB") if picture.mode in ("RGBA", "CMYK", "YCbCr", "LAB", "HSV") else picture


def _by_value(picture: Image.Image) -> Image.Image:
    """The numbers of a palette, or its greys where it holds greys alone; without alpha."""
    if picture.mode == "1":
        return picture
    if picture.mode in ("P", "PA") and not _is_palette_grey(picture):
        return picture.convert("P")
    return _in_colours(picture)


def _is_palette_grey(picture: Image.Image) -> bool:
    palette = np.array(picture.getpalette("RGB")).reshape(-1, 3)
    return bool((np.ptp(palette, axis=1) == 0).all())


def _deep_tiff(path: Path) -> Pixels | None:
    """The pixels of a TIFF whose values Pillow would cut to 8 bits, or has no mode for; None where Pillow reads it.

    Raises DataError for several pages, and for such a TIFF that is turned or transparent.
    """
    with tifffile.TiffFile(path) as tiff:
        if not len(tiff.pages):
            raise ValueError("it holds no page; the file was cut off")
        series = tiff.series[0]
        pages = max(sum(not page.is_reduced for page in tiff.pages), len(series))
        if pages > 1:
            raise DataError(f"{path}: has {pages} pages; save each as a picture, or all as one NIfTI volume")
        page = series.keyframe
        if _suits_pillow(page):
            _verify_strips(tiff, page)
            return None
        if page.tags.valueof("Orientation", 1) != 1 or set(page.extrasamples) & ALPHA:
            raise DataError(f"{path}: is a turned or transparent TIFF of {page.dtype}; export it with 8 bits a channel")
        pixels: Pixels = page.asarray()
        if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
            pixels = np.iinfo(pixels.dtype).max - pixels
        return np.moveaxis(pixels, 0, -1) if page.axes == "SYX" else pixels


def _verify_strips(tiff: tifffile.TiffFile, page: tifffile.TiffPage) -> None:
    """Compare the checksums of deflated strips, which Pillow does not. Raises zlib.error where one differs."""
    if page.compression in DEFLATE:
        for offset, length in zip(page.dataoffsets, page.databytecounts, strict=False):
            tiff.filehandle.seek(offset)
            if length:
                zlib.decompress(tiff.filehandle.read(length))


def _suits_pillow(page: tifffile.TiffPage) -> bool:
    if page.dtype in (np.bool_, np.uint8):
        return bool(page.samplesperpixel <= 4)
    is_inverted = page.photometric == tifffile.PHOTOMETRIC.MINISWHITE
    is_known = page.samplesperpixel == 1 and page.dtype in (np.uint16, np.int16, np.int32, np.float32)
    return is_known and not is_inverted


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence tifffile's log of errors that it also raises, and Pillow's warnings about tags that are not used here."""
    with quiet("tifffile"), warnings.catch_warnings(action="ignore"):
        yield

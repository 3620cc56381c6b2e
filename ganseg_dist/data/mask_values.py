"""The values of a mask file: from pixels to whole numbers, and from those to our label values."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ganseg_dist.data.cohort import Case, Source
from ganseg_dist.data.colours import channel_plane, colour_channels, split_colours
from ganseg_dist.data.grid import Flaw, Volume, as_float
from ganseg_dist.data.labels import Labels
from ganseg_dist.data.listing import decoding, is_nifti
from ganseg_dist.data.picture import BRIGHTEST, Pixels, is_lossy
from ganseg_dist.errors import DataError

WHITE = (2**8 - 1, 2**16 - 1)
"""The values that black-and-white pictures of 8 and 16 bits store for 1."""

ROUNDING = 1e-3
"""Largest distance of a value from its whole number: scaling and resampling cause such errors."""

FEWEST_PROBABILITIES = 10
"""Fractions between 0 and 1 of a probability map; a drawn mask with a few blurred values has fewer."""

LEAST_BRIGHT = 64
"""A JPEG whose brightest value is smaller shows nothing: compression alone leaves noise of up to some 30."""

LEVELS = (1 / 8, 0.55)
"""Shares of the brightest value between which a flat part of a JPEG is neither background nor structure."""

FLATNESS = 0.1
"""Share of the brightest value by which the 3 x 3 pixels of a flat part differ at most; edges differ by more."""

MOST_FLAT = 0.05
"""Flat pixels between the levels, as a share of the structure: a blurred edge has fewer down to a quality of 10."""


def mask_plane(file: Path, pixels: Pixels, source: Source) -> Volume:
    """(rows, columns): 1 where a mask is not black, its colours as 0xRRGGBB, or its values, by `source.reads`.

    A JPEG's bright half is 255, unless its colours count. Raises DataError for values that are no whole numbers.
    """
    with decoding(file, "picture"):
        pixels = whole_numbers(file, pixels)
        if source.reads == "colour code":  # on whole planes at once; float32 holds 24 bits exactly
            red, green, blue = split_colours(file, pixels)
            return np.asarray(red * np.float32(1 << 16) + green * np.float32(1 << 8) + blue, np.float32)
        if source.channel is not None:
            values = channel_plane(file, pixels, source.channel)
        else:
            values = as_float(np.maximum.reduce(split_colours(file, pixels)))
        if is_lossy(file):
            values = np.where(bright_half(file, values), np.float32(BRIGHTEST), np.float32(0))
        return (values > 0).astype(np.float32) if source.reads == "not black" else values


def whole_numbers(file: Path, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A mask's values, rounded where they lie within `ROUNDING` of a whole number. Raises DataError naming others."""
    if not np.issubdtype(values.dtype, np.floating):
        return values
    not_finite = int((~np.isfinite(values)).sum())
    if not_finite:
        raise DataError(f"{file}: the mask has {not_finite} voxels that are NaN or infinite; export it again")
    whole: npt.NDArray[Any] = np.rint(values)
    fractions = np.unique(values[np.abs(values - whole) > ROUNDING])
    if not fractions.size:
        return whole
    if values.min() >= 0 and values.max() <= 1 and fractions.size >= FEWEST_PROBABILITIES:
        span = f"{fractions[0]:.3g} to {fractions[-1]:.3g}"
        raise DataError(f"{file}: holds probabilities of {span}, no labels; cut them at a threshold, such as 0.5")
    examples = ", ".join(str(value) for value in fractions[:5]) + (", ..." if fractions.size > 5 else "")
    raise DataError(f"{file}: the mask has values that are no whole numbers, {examples}; round or recode it")


def bright_half(file: Path, levels: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """(rows, columns): True where a JPEG mask is at least half as bright as its brightest pixel.

    All False where that pixel is below `LEAST_BRIGHT`. Raises DataError where a flat part is about half as bright
    or less, so that no threshold can decide whether it counts.
    """
    levels = levels.astype(np.float32)
    brightest = float(levels.max(initial=0))
    if brightest < LEAST_BRIGHT:
        return np.zeros(levels.shape, bool)
    structure = levels >= brightest / 2
    between = _flat_between(levels, brightest)
    if between.size > MOST_FLAT * structure.sum():
        problem = f"is a JPEG mask of several grey levels, such as {np.median(between):.0f} beside {brightest:.0f}"
        raise DataError(f"{file}: {problem}; save it as PNG, or name its levels in masks/labels.json")
    return structure


def _flat_between(levels: Volume, brightest: float) -> Volume:
    lowest, highest = (share * brightest for share in LEVELS)
    contrast = ndimage.maximum_filter(levels, 3) - ndimage.minimum_filter(levels, 3)
    values: Volume = levels[(levels > lowest) & (levels < highest) & (contrast < FLATNESS * brightest)]
    return values


def translate_labels(raw: Volume, case: Case) -> tuple[Labels, tuple[int, ...], Flaw | None]:
    """Our label values of a mask as stored; the known stored values that it holds; and a flaw that lists unknown ones.

    The stored values are in the order of the case's labels, without background.
    """
    meanings = case.labels
    if case.mask is not None and _is_black_and_white(case, raw):
        meanings = {0: 0, **dict.fromkeys(WHITE, 1)}
    elif case.mask is not None and case.mask.reads == "colour code" and is_lossy(case.mask.files[0]):
        raw = _nearest_code(raw, tuple(meanings))
    labels = np.zeros(raw.shape, np.uint8)
    known = np.zeros(raw.shape, bool)
    present = []
    for stored, label in meanings.items():
        matches = raw == stored
        labels[matches] = label
        known |= matches
        if stored and matches.any():
            present.append(stored)
    return labels, tuple(present), _flaw(np.unique(raw[~known]).tolist(), tuple(meanings), case)


def _flaw(unknown: Sequence[float], known: Sequence[int], case: Case) -> Flaw | None:
    if not unknown:
        return None
    in_colour = case.mask is not None and case.mask.reads == "colour code"
    text_of = _as_rgb if in_colour else "{:.0f}".format
    values = ", ".join(text_of(value) for value in unknown[:5]) + (", ..." if len(unknown) > 5 else "")
    problem = f"unknown label values {values}; known are {', '.join(text_of(value) for value in known)}"
    remedy = "add these colours to labels.json" if in_colour else "recode the mask, or state its scheme with --labels"
    return Flaw("labels", problem, remedy)


def _is_black_and_white(case: Case, raw: Volume) -> bool:
    """Whether a binary mask is a picture that writes white for 1."""
    is_picture = case.mask is not None and not is_nifti(case.mask.files[0])
    return is_picture and set(case.labels) == {0, 1} and bool(np.isin(WHITE, raw).any())


def _nearest_code(codes: Volume, known: Sequence[int]) -> Volume:
    """Each pixel's nearest known colour, by the distance between their channels."""
    palette = np.array([colour_channels(code) for code in known])
    distinct, inverse = np.unique(codes, return_inverse=True)
    distances = np.linalg.norm(np.array([colour_channels(int(code)) for code in distinct])[:, None] - palette, axis=2)
    nearest = np.array(known, np.float32)[distances.argmin(axis=1)]
    return np.asarray(nearest[inverse].reshape(codes.shape))


def _as_rgb(code: float) -> str:
    return str(colour_channels(int(code)))

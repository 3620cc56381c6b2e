"""The values of a mask file: whole numbers, or the bright half of a JPEG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ganseg_dist.data.formats import Volume
from ganseg_dist.errors import DataError

ROUNDING = 1e-3
"""How far a value may lie from the whole number that it stands for: scaling and resampling cause such errors."""

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
    """The values of flat parts between `LEVELS`."""
    lowest, highest = (share * brightest for share in LEVELS)
    contrast = ndimage.maximum_filter(levels, 3) - ndimage.minimum_filter(levels, 3)
    values: Volume = levels[(levels > lowest) & (levels < highest) & (contrast < FLATNESS * brightest)]
    return values

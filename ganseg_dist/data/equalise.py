"""Histogram equalisation: the pre-processing of DL-GAN-CNN, Section 4.2."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
from skimage import exposure

from ganseg_dist.data.formats import Volume

LEVELS = 256
"""L of Eq. 3: the grey levels of an 8-bit image."""


def equalise(
    volume: Volume, foreground: npt.NDArray[np.bool_], *, method: Literal["global", "clahe"] = "global"
) -> Volume:
    """One channel's contrast spread over [0, 1], 0 outside the foreground. Any intensity range; flat tissue stays as it
    is.

    The background is left out: it is most of a slice, and its one level would push all tissue to the bright end.

    Args:
        volume: (S, H, W) or one plane (H, W).
        foreground: the same shape.
        method: "global" is Eqs. 1-3 over all the planes' tissue at once, so that slices stay comparable; "clahe"
            equalises each plane's neighbourhoods under a limit on contrast, so that only values within a plane compare.
    """
    equalised = np.zeros(volume.shape, np.float32)
    tissue = volume[foreground].astype(np.float64)
    if tissue.size == 0:
        return equalised
    span = float(tissue.max() - tissue.min())
    equalised[foreground] = (tissue - tissue.min()) / span if span > 0 else 0.5
    if span == 0:
        return equalised
    if method == "clahe":
        return _clahe(equalised, foreground)
    levels = np.round(equalised * (LEVELS - 1)).astype(np.uint8)
    share_below = exposure.equalize_hist(levels, mask=foreground)  # Eqs. 1-2: the CDF of each pixel's level
    equalised[foreground] = np.round(share_below[foreground] * (LEVELS - 1)) / (LEVELS - 1)  # Eq. 3
    return equalised


def _clahe(volume: Volume, foreground: npt.NDArray[np.bool_]) -> Volume:
    """Contrast-limited adaptive equalisation of each plane that is not constant; volume in [0, 1]."""
    rows, columns = volume.shape[-2:]
    planes, foregrounds = volume.reshape(-1, rows, columns), foreground.reshape(-1, rows, columns)
    equalised = [exposure.equalize_adapthist(plane, nbins=LEVELS) if np.ptp(plane) > 0 else plane for plane in planes]
    return np.where(foregrounds, equalised, 0).astype(np.float32).reshape(volume.shape)

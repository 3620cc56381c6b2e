"""Contrast: the enhancement of GANet-Seg (Appendix C) and the histogram equalisation of DL-GAN-CNN (Section 4.2)."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import erf
from skimage import exposure

from ganseg_dist.data.grid import Volume

LAMBDA = 2.0

LEVELS = 256
"""L of Eq. 3: the grey levels of an 8-bit image."""


def enhance(
    volume: Volume, foreground: npt.NDArray[np.bool_], *, reading: Literal["corrected", "paper"] = "corrected"
) -> Volume:
    """Eqs. 13-17 on tissue scaled to [0, 1]; returns [0, 1], 0 outside the foreground.

    The corrected reading takes -0.5 * IMG3 of Eq. 16 inside erf; as printed, outside it, contrast is inverted for
    lambda >= 1. In float64, because the range before the last rescaling is only 0.017.
    """
    enhanced = np.zeros(volume.shape, np.float32)
    tissue = volume[foreground].astype(np.float64)
    if tissue.size == 0 or tissue.max() == tissue.min():
        return enhanced
    image = (tissue - tissue.min()) / (tissue.max() - tissue.min())
    image1 = image.max() / np.log(image.max() + 1) * np.log(image + 1)  # Eq. 13
    image2 = 1 - np.exp(-image)  # Eq. 14
    image3 = (image1 + image2) / (LAMBDA + image1 * image2)  # Eq. 15
    stretched = LAMBDA * np.arctan(np.exp(image3))
    image4 = erf(stretched - 0.5 * image3) if reading == "corrected" else erf(stretched) - 0.5 * image3  # Eq. 16
    enhanced[foreground] = (image4 - image4.min()) / (image4.max() - image4.min())  # Eq. 17
    return enhanced


def equalise(
    volume: Volume, foreground: npt.NDArray[np.bool_], *, method: Literal["global", "clahe"] = "global"
) -> Volume:
    """One channel's contrast spread over [0, 1], 0 outside the foreground; a plane (H, W) or a stack (S, H, W) of any
    intensity range. Flat tissue stays as it is.

    The background is left out: it is most of a slice, and its one level would push all tissue to the bright end.
    "global" is Eqs. 1-3 over all the planes' tissue at once, so that slices stay comparable; "clahe" equalises each
    plane's neighbourhoods under a limit on contrast, so that only values within a plane compare.
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

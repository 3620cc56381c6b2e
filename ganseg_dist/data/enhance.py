"""The contrast enhancement of GANet-Seg, Appendix C."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import erf

from ganseg_dist.data.formats import Volume

LAMBDA = 2.0


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

"""Two masks on one grid, the input of every segmentation score: checked once, and cropped to their union."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import find_objects

from ganseg_dist.errors import DataError

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class MaskPair:
    """A prediction and its truth on the same grid."""

    prediction: Mask
    truth: Mask
    spacing: tuple[float, ...]
    """Voxel size along each axis in mm; ones for pictures, whose distances are then in pixels."""

    @property
    def voxel_volume(self) -> float:
        """Volume of one voxel in mm3; 1 for pictures."""
        return math.prod(self.spacing)

    @property
    def diagonal(self) -> float:
        """Length of the grid's diagonal: 373.13 mm for 240x240x155 at 1 mm."""
        return math.hypot(*(size * step for size, step in zip(self.truth.shape, self.spacing, strict=True)))

    def cropped(self) -> MaskPair:
        """Both masks cut to the bounding box of their union, which must not be empty.

        Distances, surfaces and dilations inside are those of the whole image, because everything outside is
        background. So are the components of a dilation: two parts that it joins outside the box are also joined
        at the nearest voxels inside, which are no farther, along any axis, from the mask.
        """
        (box,) = find_objects(self.prediction | self.truth, max_label=1)
        return MaskPair(np.ascontiguousarray(self.prediction[box]), np.ascontiguousarray(self.truth[box]), self.spacing)


def pair_masks(prediction: Mask, truth: Mask, spacing_mm: Sequence[float] | None = None) -> MaskPair:
    """Check two boolean masks and drop their axes of length 1.

    A picture stored as (X, Y, 1) is thus measured as a 2-D image, not as a slab whose every voxel lies on its
    surface.

    Raises DataError when a mask is not boolean, the shapes differ, or the spacing does not fit them.
    """
    check_masks(prediction, truth)
    spacing = (1.0,) * truth.ndim if spacing_mm is None else tuple(float(step) for step in spacing_mm)
    if len(spacing) != truth.ndim or not all(math.isfinite(step) and step > 0 for step in spacing):
        raise DataError(
            f"spacing_mm: {spacing} does not fit masks of shape {truth.shape}; give one positive size an axis"
        )
    kept = [axis for axis, size in enumerate(truth.shape) if size > 1] or [0]
    shape = tuple(truth.shape[axis] for axis in kept)
    return MaskPair(prediction.reshape(shape), truth.reshape(shape), tuple(spacing[axis] for axis in kept))


def check_masks(prediction: Mask, truth: Mask) -> None:
    """Raises DataError unless both are boolean, of one shape and not empty arrays."""
    for name, mask in (("prediction", prediction), ("truth", truth)):
        if mask.dtype != np.bool_:
            raise DataError(f"{name}: is {mask.dtype}, not boolean; threshold or compare it first")
    if prediction.shape != truth.shape:
        raise DataError(
            f"prediction: shape {prediction.shape} differs from the truth's {truth.shape}; bring it on the truth's grid"
        )
    if truth.size == 0:
        raise DataError(f"truth: shape {truth.shape} holds no voxels; score at least one")

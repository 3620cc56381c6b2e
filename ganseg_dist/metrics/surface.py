"""Distance of two masks' surfaces: the 95th percentile Hausdorff distance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_erosion
from scipy.spatial import KDTree

from ganseg_dist.metrics.masks import Mask, pair_masks

Points = npt.NDArray[np.float64]


def hd95(prediction: Mask, truth: Mask, spacing_mm: Sequence[float] | None = None) -> float:
    """95th percentile Hausdorff distance of two 2-D or 3-D boolean masks of one shape.

    HD95(P, T) = max(q95{d(p, ∂T) : p in ∂P}, q95{d(t, ∂P) : t in ∂T}), Euclidean between voxel centres;
    GANet-Seg Eq. 20 with q95, linearly interpolated, for its suprema. The surface ∂ is the mask less its
    erosion by the 6-connected (in 2-D the 4-connected) element, the outside of the image being background.

    MONAI computes the same. medpy uses the same surface, and takes one percentile of both directions' distances
    together, which is usually smaller; surface-distance weighs each surface element by its area.

    In mm with `spacing_mm`, one size per axis; in pixels without: then name the column `hd95_px`.
    Both empty 0; one empty the image's diagonal (373.13 for 240x240x155 at 1 mm). Never NaN.

    Raises DataError when the masks are not boolean, differ in shape or do not fit the spacing.
    """
    pair = pair_masks(prediction, truth, spacing_mm)
    if not pair.prediction.any() or not pair.truth.any():
        return pair.diagonal if pair.prediction.any() or pair.truth.any() else 0.0
    near = pair.cropped()
    return hd95_of_points(
        points_of(surface_voxels(near.prediction), near.spacing), points_of(surface_voxels(near.truth), near.spacing)
    )


def surface_voxels(mask: Mask) -> Mask:
    """Voxels of the mask with a background voxel, or the image's edge, across one of their faces."""
    surface: Mask = mask & ~binary_erosion(mask)
    return surface


def points_of(mask: Mask, spacing: Sequence[float]) -> Points:
    """(N, D) centres of the mask's voxels, in the unit of the spacing."""
    points: Points = np.argwhere(mask).astype(np.float64) * np.asarray(spacing, np.float64)
    return points


def hd95_of_points(first: Points, second: Points) -> float:
    """HD95 of two non-empty sets of points, (N, D) and (M, D), in their unit."""
    # A tree over surface points is exact and avoids a distance map of the whole volume. With large leaves a
    # query takes a third of the time where the surfaces lie far apart.
    to_second, _ = KDTree(second, leafsize=64).query(first)
    to_first, _ = KDTree(first, leafsize=64).query(second)
    return float(max(np.percentile(to_second, 95), np.percentile(to_first, 95)))

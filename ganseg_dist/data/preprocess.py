"""From a scan on its native grid to a stack of square slices in [-1, 1], and back."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from ganseg_dist.config import DataConfig
from ganseg_dist.data.batch import BACKGROUND, DARKEST
from ganseg_dist.data.clusters import clustered_channel, initial_mask
from ganseg_dist.data.cohort import are_colours
from ganseg_dist.data.contrast import enhance, equalise
from ganseg_dist.data.foreground import Mask, foreground_mask
from ganseg_dist.data.grid import Grid, Volume
from ganseg_dist.data.labels import REGION_LABELS, Labels
from ganseg_dist.data.picture import BRIGHTEST
from ganseg_dist.data.scan import Scan
from ganseg_dist.errors import DataError

Voxel = TypeVar("Voxel", bound=np.generic)

PICTURE_AXES = ("P", "R", "S")
"""RAS axes laid out as pictures: rows run from anterior to posterior, columns from left to right, slices upward."""

ROBUST_RANGE = 4.0
"""Tissue within median +- 4 robust standard deviations is mapped to (-1, 1)."""

LEAST_DEVIATION = 1e-18
"""Least deviation of tissue without contrast: `LARGEST_INTENSITY` divided by it is still a float32."""

LEAST_VOXEL = 1e-3
"""A window that exceeds whole voxels by less than this share gets no further voxel: spacing is not that exact."""

LEAST_FOREGROUND = 0.02
"""Slices with less foreground than this share of the window are neither trained on nor evaluated."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Place of the prepared slices in the native volume, by which `restore` returns a prediction to it."""

    grid: Grid
    """The native grid."""
    origin: tuple[int, int]
    """First row and column of the window in picture axes; negative where it starts outside the volume."""
    sides: tuple[int, int]
    """Rows and columns of the window on the native grid."""


@dataclass(frozen=True, slots=True)
class PreparedScan:
    """A prepared scan: the input of networks."""

    image: Volume
    """(S, C, size, size) in [-1, 1], background exactly -1; the modalities, then `config.made_channels`."""
    masks: Labels | None
    """(S, R, size, size) in {0, 1}."""
    placement: Placement

    @property
    def foreground(self) -> npt.NDArray[np.float64]:
        """(S,) share of each slice that is foreground."""
        return np.asarray((self.image > BACKGROUND).any(axis=1).mean(axis=(1, 2)))

    @property
    def lesion(self) -> npt.NDArray[np.int64]:
        """(S,) pixels of each slice in any region; zeros without masks."""
        if self.masks is None:
            return np.zeros(len(self.image), np.int64)
        return np.asarray(self.masks.any(axis=1).sum(axis=(1, 2)))

    @property
    def usable(self) -> npt.NDArray[np.bool_]:
        """(S,) slices to train on and to evaluate."""
        return usable_slices(self.foreground, self.lesion)


def usable_slices(foreground: npt.NDArray[np.float64], lesion: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """(S,) slices with enough foreground, and all with a lesion; from (S,) shares of foreground and lesion pixels."""
    return (foreground >= LEAST_FOREGROUND) | (lesion > 0)


def intensities_of(modalities: Sequence[str], config: DataConfig) -> Literal["tissue", "colour"]:
    """`config.intensities` with auto resolved for these channels."""
    if config.intensities != "auto":
        return config.intensities
    return "colour" if are_colours(modalities) else "tissue"


def prepare_scan(scan: Scan, config: DataConfig, regions: tuple[str, ...]) -> PreparedScan:
    """Reorient, normalise over the foreground, crop to it, (enhance,) resample in-plane, slice, (equalise, cluster).

    The window is the foreground's bounding square at `config.spacing_mm`, or at coarser pixels where the foreground
    does not fit, so that none of it is cut off. Slices keep their spacing, as the networks are 2-D.
    With colour intensities the whole picture is foreground, and only the padding to a square is background.

    Raises DataError when the config sets colour intensities and the scan's lie outside 0..255, and when an intensity
    of the slices is NaN or infinite.
    """
    image = np.stack([to_picture_axes(volume, scan.grid) for volume in scan.image])
    if intensities_of(scan.modalities, config) == "colour":
        foreground = np.ones(image.shape[1:], bool)
        normalised = _as_displayed(image)
    else:
        foreground = foreground_mask(image)
        normalised = np.stack([_normalise(volume, foreground) for volume in image])
    placement = _window(foreground, scan.grid, config)
    if config.enhance != "off":
        enhanced = [2 * enhance(volume, foreground, reading=config.enhance) - 1 for volume in normalised]
        normalised = np.where(foreground, np.maximum(enhanced, DARKEST), BACKGROUND).astype(np.float32)
    # Shifted by one while resampling, so that the zeros outside the window are background.
    planes = np.moveaxis(normalised, -1, 0) - BACKGROUND  # (S, C, rows, columns)
    slices = (_resample(planes, placement, config.size) + BACKGROUND).clip(-1, 1)  # weights sum to up to 1 + 1e-7
    inside = np.asarray((slices > BACKGROUND).any(axis=1))
    if config.equalise != "off":
        slices = _equalised(slices, inside, config.equalise)
    if config.clusters is not None:
        clustered = clustered_channel(slices, scan.modalities)
        mask = initial_mask(clustered, inside, config.clusters, by=config.cluster_by)
        slices = np.concatenate([slices, np.where(mask, 1, BACKGROUND)[:, None].astype(np.float32)], axis=1)
    if not np.isfinite(slices).all():
        raise DataError(f"{scan.case}: intensities became NaN or infinite in preparation; export the images again")
    masks = None
    if scan.labels is not None:
        labels = to_picture_axes(scan.labels, scan.grid)
        stack = np.stack([np.isin(labels, REGION_LABELS[region]) for region in regions])
        masks = (_resample(np.moveaxis(stack, -1, 0).astype(np.float32), placement, config.size) >= 0.5).astype(
            np.uint8
        )
    return PreparedScan(slices, masks, placement)


def restore(planes: Volume, placement: Placement, *, outside: float = 0.0) -> Volume:
    """Slices (S, K, size, size) back on the native grid, (K, X, Y, Z); `outside` is the value outside the window."""
    rows, columns, slices = picture_shape(placement.grid)
    at_sides = F.interpolate(
        torch.from_numpy(planes), size=placement.sides, mode="bilinear", align_corners=False
    ).numpy()
    volume = np.full((planes.shape[1], rows, columns, slices), outside, np.float32)
    inside, window = _overlap(placement, (rows, columns))
    # Bilinear weights sum to up to 1 + 1e-7: a probability must stay in [0, 1].
    volume[:, inside[0], inside[1]] = np.moveaxis(at_sides[:, :, window[0], window[1]], 0, -1).clip(
        planes.min(), planes.max()
    )
    return np.stack([from_picture_axes(part, placement.grid) for part in volume])


def to_picture_axes(volume: npt.NDArray[Voxel], grid: Grid) -> npt.NDArray[Voxel]:
    """(X, Y, Z) in native axes to (rows, columns, slices); pictures are returned as they are."""
    if grid.affine is None:
        return volume
    return np.asarray(nib.orientations.apply_orientation(volume, _to_picture(grid.affine)))


def from_picture_axes(volume: npt.NDArray[Voxel], grid: Grid) -> npt.NDArray[Voxel]:
    """The inverse of `to_picture_axes`."""
    if grid.affine is None:
        return volume
    native = nib.io_orientation(grid.affine)
    back = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt(PICTURE_AXES), native)
    return np.asarray(nib.orientations.apply_orientation(volume, back))


def native_foreground(volumes: Iterable[Volume], grid: Grid) -> Mask:
    """The `foreground` of modalities (X, Y, Z) on one grid, on that grid: holes are filled in its axial slices."""
    return from_picture_axes(foreground_mask(np.stack([to_picture_axes(volume, grid) for volume in volumes])), grid)


def picture_shape(grid: Grid) -> tuple[int, int, int]:
    """Rows, columns and slices of a grid in picture axes."""
    if grid.affine is None:
        return grid.shape
    rows, columns, slices = (grid.shape[axis] for axis in _native_axes(grid.affine))
    return rows, columns, slices


def picture_spacing(grid: Grid) -> tuple[float, float, float]:
    """A voxel's height, width and thickness in mm in picture axes; 1 (pixels) where the size in mm is unknown."""
    if grid.affine is None or grid.spacing_mm is None:
        return 1.0, 1.0, 1.0
    row, column, thickness = (grid.spacing_mm[axis] for axis in _native_axes(grid.affine))
    return row, column, thickness


def _to_picture(affine: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    target = nib.orientations.axcodes2ornt(PICTURE_AXES)
    return np.asarray(nib.orientations.ornt_transform(nib.io_orientation(affine), target))


def _native_axes(affine: npt.NDArray[np.float64]) -> list[int]:
    """For each picture axis, the corresponding native axis."""
    targets = _to_picture(affine)[:, 0].astype(int).tolist()
    return [targets.index(axis) for axis in range(3)]


def _window(foreground: npt.NDArray[np.bool_], grid: Grid, config: DataConfig) -> Placement:
    """The square (in mm, or in pixels without spacing) around the foreground."""
    row_mm, column_mm, _ = picture_spacing(grid)
    # A picture without mm may be enlarged, but not more than twofold.
    smallest = config.size * (0.5 if grid.affine is None else config.spacing_mm)
    rows, columns = _extent(foreground.any(axis=(1, 2))), _extent(foreground.any(axis=(0, 2)))
    side = max((rows[1] - rows[0]) * row_mm, (columns[1] - columns[0]) * column_mm, smallest)
    sides = (math.ceil(side / row_mm - LEAST_VOXEL), math.ceil(side / column_mm - LEAST_VOXEL))
    origin = (sum(rows) // 2 - sides[0] // 2, sum(columns) // 2 - sides[1] // 2)
    return Placement(grid, origin, sides)


def _equalised(slices: Volume, foreground: npt.NDArray[np.bool_], method: Literal["global", "clahe"]) -> Volume:
    """Each channel's contrast spread over (-1, 1]; (S, C, size, size)."""
    channels = [2 * equalise(slices[:, channel], foreground, method=method) - 1 for channel in range(slices.shape[1])]
    return np.where(foreground[:, None], np.maximum(np.stack(channels, axis=1), DARKEST), BACKGROUND).astype(np.float32)


def _extent(occupied: npt.ArrayLike) -> tuple[int, int]:
    """First and one past the last occupied index; the whole axis where none is occupied."""
    where = np.flatnonzero(occupied)
    return (int(where[0]), int(where[-1]) + 1) if len(where) else (0, np.size(occupied))


def _normalise(volume: Volume, foreground: npt.NDArray[np.bool_]) -> Volume:
    """Scale by the foreground's median and interquartile range to (-1, 1): a large lesion hardly moves either."""
    tissue = volume[foreground]
    if tissue.size == 0:
        return np.full(volume.shape, BACKGROUND, np.float32)
    lower, median, upper = np.percentile(tissue, (25, 50, 75))
    deviation = (upper - lower) / 1.349  # the IQR of a unit normal
    deviation = max(deviation, 1e-6 * abs(float(median)), LEAST_DEVIATION)  # rounding errors are no contrast
    scaled = np.clip((volume - median) / (ROBUST_RANGE * deviation), DARKEST, 1.0)
    return np.where(foreground, scaled, BACKGROUND).astype(np.float32)


def _as_displayed(image: Volume) -> Volume:
    """0..255 to [-1, 1]; black is `DARKEST`, as it is foreground. Raises DataError for values outside 0..255."""
    if image.min() < 0 or image.max() > BRIGHTEST:
        raise DataError(
            f"data.intensities: colour needs values of 0 to {BRIGHTEST}, an image here goes from {image.min():g} to "
            f"{image.max():g}; set it to tissue, or export the images with 8 bits"
        )
    return np.asarray(np.maximum(image / (BRIGHTEST / 2) - 1, DARKEST), np.float32)


def _resample(planes: npt.NDArray[np.float32], placement: Placement, size: int) -> Volume:
    """(S, K, rows, columns) cut to the window, zero outside the volume, to (S, K, size, size)."""
    inside, window = _overlap(placement, (planes.shape[2], planes.shape[3]))
    cut = np.zeros((*planes.shape[:2], *placement.sides), np.float32)
    cut[:, :, window[0], window[1]] = planes[:, :, inside[0], inside[1]]
    shrinks = max(placement.sides) > size
    resized = F.interpolate(
        torch.from_numpy(cut), size=(size, size), mode="bilinear", align_corners=False, antialias=shrinks
    )
    return resized.numpy()


def _overlap(placement: Placement, shape: tuple[int, int]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The part that volume and window share, as slices of the volume and as slices of the window."""
    inside, window = [], []
    for origin, side, length in zip(placement.origin, placement.sides, shape, strict=True):
        first, last = max(origin, 0), min(origin + side, length)
        inside.append(slice(first, last))
        window.append(slice(first - origin, last - origin))
    return (inside[0], inside[1]), (window[0], window[1])

"""Where a volume's voxels lie in the world, and whether two volumes lie on one grid."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.affines import voxel_sizes

from ganseg_dist.errors import DataError

Volume = npt.NDArray[np.float32]

Affine = npt.NDArray[np.float64]
"""(4, 4) voxel indices to mm, to the right, the front and the top of the patient."""

Voxel = TypeVar("Voxel", bound=np.generic)

FLOAT32_NOISE = 2.5e-7
"""Relative rounding error of a voxel size that is the length of a float32 column, or was multiplied by a rotation."""
DECIMALS = 5
LARGEST_MATRIX = 1024

NO_SIDES = "no-orientation"
"""`Flaw.check` of a file whose header does not give the patient's left side."""


@dataclass(frozen=True, slots=True)
class Flaw:
    """Why a file that can be read cannot be used, or a doubt about how it is read.

    Preflight lists it, and loading reports the same text: as an error, or as a warning (`Grid.notes`).
    """

    check: str
    """A short stable name, such as `shape` or `non-finite`."""
    problem: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Grid:
    """Shape (X, Y, Z) of a volume and its voxel-to-world affine in mm; a stack of pictures has no affine."""

    shape: tuple[int, int, int]
    affine: Affine | None
    notes: tuple[Flaw, ...] = ()
    """Contradictions and gaps in the file's header, and the values that are used."""

    @property
    def spacing_mm(self) -> tuple[float, float, float] | None:
        """Voxel size along each axis, rounded; None for pictures, whose distances are in pixels."""
        if self.affine is None:
            return None
        x, y, z = voxel_sizes(self.affine)
        return rounded_mm(x), rounded_mm(y), rounded_mm(z)

    @property
    def sides_known(self) -> bool:
        """Whether it is known which side is the patient's left; for pictures it is not."""
        return self.affine is not None and all(note.check != NO_SIDES for note in self.notes)


def rounded_mm(size: float) -> float:
    """The voxel size that a header's float32 numbers approximate, the same for every way of storing it.

    The nearest decimal of at most five digits, or else a field of view over its matrix (250 / 256), where that is
    within float32's precision; else seven digits. Rounding to decimals would put 0.9765625 halfway.
    """
    for digits in range(DECIMALS + 1):
        if abs((decimal := round(float(size), digits)) - size) <= FLOAT32_NOISE * size:
            return decimal
    ratio = float(Fraction(float(size)).limit_denominator(LARGEST_MATRIX))
    return ratio if abs(ratio - size) <= FLOAT32_NOISE * size else float(f"{size:.7g}")


def reference_grid(grids: Sequence[Grid]) -> Grid:
    """The grid that most of a case's files share; the first where several are shared equally often."""
    return max(grids, key=lambda grid: sum(grid_flaw(other, grid) is None for other in grids))


def grid_flaw(grid: Grid, reference: Grid) -> Flaw | None:
    """How a grid differs: in shape, or by more than half a voxel at a corner. The order of the axes does not matter."""
    grid = _reoriented(grid, _orientation(grid, reference))
    remedy = "resample the case's files to one grid"
    if grid.shape != reference.shape:
        if grid.affine is None and grid.shape[:2] == reference.shape[1::-1]:
            remedy = "turn one by 90 degrees, or correct its EXIF orientation, by which it is displayed and read"
        return Flaw("shape", f"shape {grid.shape} differs from the other files' {reference.shape}", remedy)
    if grid.affine is None or reference.affine is None or reference.spacing_mm is None:
        return None
    apart_mm = farthest_corner(grid.affine, reference.affine, grid.shape)
    if apart_mm <= 0.5 * min(reference.spacing_mm):
        return None
    if reference.sides_known and not grid.sides_known:
        problem = "has neither sform nor qform, so it has no place among the other files"
        return Flaw("affine", problem, "copy both from another file if its voxels lie on theirs, or export it again")
    if grid.sides_known and not reference.sides_known:
        problem = "lies elsewhere than the other files, which have neither sform nor qform"
        return Flaw("affine", problem, "copy both to them from this file if its voxels lie on theirs")
    return Flaw("affine", f"affine places it up to {apart_mm:.1f} mm from the other files", remedy)


def farthest_corner(first: Affine, second: Affine, shape: Sequence[int]) -> float:
    """The largest distance in mm, over the corners of a volume, between where two affines place it."""
    corners = np.array([(*corner, 1) for corner in product(*((0, length - 1) for length in shape))])
    return float(np.linalg.norm((corners @ (first - second).T)[:, :3], axis=1).max())


def reorient(volume: npt.NDArray[Voxel], grid: Grid, reference: Grid) -> npt.NDArray[Voxel]:
    """A volume (X, Y, Z) with its axes in the order and direction of the reference's."""
    orientation = _orientation(grid, reference)
    if orientation is None:
        return volume
    return np.ascontiguousarray(nib.orientations.apply_orientation(volume, orientation))


def distinct_notes(grids: Iterable[tuple[Path, Grid]]) -> list[tuple[Path, Flaw]]:
    """The notes on a case's files, each once, with the first file that has it."""
    first: dict[Flaw, Path] = {}
    for file, grid in grids:
        for note in grid.notes:
            first.setdefault(note, file)
    return [(file, note) for note, file in first.items()]


def as_float(voxels: npt.NDArray[Any]) -> Volume:
    """Cast to float32, of the same kind only: dropping a colour or an imaginary part raises TypeError."""
    return voxels.astype(np.float32, order="C", casting="same_kind", subok=False, copy=False)


def shape_of(file: Path, volume: Volume) -> tuple[int, int, int]:
    """(X, Y, Z). Raises DataError naming a file that is not 3-D or has no voxels."""
    if volume.ndim != 3:
        raise DataError(f"{file}: is {volume.ndim}-D; export it as a 3-D volume")
    if volume.size == 0:
        raise DataError(f"{file}: has no voxels; export it again or leave the case out")
    return int(volume.shape[0]), int(volume.shape[1]), int(volume.shape[2])


def _orientation(grid: Grid, reference: Grid) -> npt.NDArray[np.float64] | None:
    """For each axis, the closest axis of the reference and its direction; None where they agree."""
    if grid.affine is None or reference.affine is None:
        return None
    # Relative to each other, not to the patient's axes: two files of one oblique volume get the same orientation.
    orientation = np.asarray(nib.io_orientation(np.linalg.inv(reference.affine) @ grid.affine))
    return None if np.array_equal(orientation, [[0, 1], [1, 1], [2, 1]]) else orientation


def _reoriented(grid: Grid, orientation: npt.NDArray[np.float64] | None) -> Grid:
    if orientation is None or grid.affine is None:
        return grid
    shape = [0, 0, 0]
    for length, axis in zip(grid.shape, orientation[:, 0].astype(int), strict=True):
        shape[axis] = length
    affine = np.asarray(grid.affine @ nib.orientations.inv_ornt_aff(orientation, grid.shape))
    return Grid((shape[0], shape[1], shape[2]), affine, grid.notes)

"""Where a volume's voxels lie in the world, and whether two volumes lie on one grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt
from nibabel.affines import voxel_sizes

from ganseg_dist.data.formats import Volume
from ganseg_dist.errors import DataError


@dataclass(frozen=True, slots=True)
class Flaw:
    """Why a file that can be read cannot be used; preflight lists it, loading refuses it in the same words."""

    check: str
    """A short stable name, such as `shape` or `non-finite`."""
    problem: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Grid:
    """Shape (X, Y, Z) of a volume and its voxel-to-world affine; a stack of pictures has no affine."""

    shape: tuple[int, int, int]
    affine: npt.NDArray[np.float64] | None

    @property
    def spacing_mm(self) -> tuple[float, float, float] | None:
        """Voxel size along each axis; none for pictures, whose distances are in pixels."""
        if self.affine is None:
            return None
        x, y, z = voxel_sizes(self.affine)
        return float(x), float(y), float(z)

    @property
    def sides_known(self) -> bool:
        """Whether it is known which side is the patient's left; of pictures it is not."""
        return self.affine is not None


def reference_grid(grids: Sequence[Grid]) -> Grid:
    """The grid that most of a case's files share; of two, the first."""
    return max(grids, key=lambda grid: sum(grid_flaw(other, grid) is None for other in grids))


def grid_flaw(grid: Grid, reference: Grid) -> Flaw | None:
    """How a grid differs: in shape, or by more than half a voxel at some corner."""
    remedy = "resample the case's files to one grid"
    if grid.shape != reference.shape:
        return Flaw("shape", f"shape {grid.shape} differs from the other files' {reference.shape}", remedy)
    if grid.affine is None or reference.affine is None or reference.spacing_mm is None:
        return None
    corners = np.array([(*corner, 1) for corner in product(*((0, length - 1) for length in grid.shape))])
    apart_mm = np.linalg.norm((corners @ (grid.affine - reference.affine).T)[:, :3], axis=1).max()
    if apart_mm <= 0.5 * min(reference.spacing_mm):
        return None
    return Flaw("affine", f"affine places it up to {apart_mm:.1f} mm from the other files", remedy)


def grid_of(file: Path, volume: Volume, affine: npt.NDArray[np.float64] | None) -> Grid:
    """Raises DataError naming the file where there is nothing to lay out, or no way to lay it out."""
    if volume.ndim != 3:
        raise DataError(f"{file}: is {volume.ndim}-D; export it as a 3-D volume")
    if volume.size == 0:
        raise DataError(f"{file}: has no voxels; export it again or leave the case out")
    if affine is not None and not (np.isfinite(affine).all() and np.linalg.matrix_rank(affine[:3, :3]) == 3):
        raise DataError(f"{file}: affine is zero, NaN or singular, so it has no place in the world; export it again")
    return Grid((int(volume.shape[0]), int(volume.shape[1]), int(volume.shape[2])), affine)

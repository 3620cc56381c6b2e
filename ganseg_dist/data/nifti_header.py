"""The affine of a NIfTI header, in mm. It holds two transforms, voxel sizes and a unit, which may disagree.

sform is used, as most tools do; qform where sform is not usable. There are two exceptions: an sform of unit scale
beside other voxel sizes is a rotation whose scale was lost, and where neither is set nibabel's guess is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.affines import from_matvec, voxel_sizes
from nibabel.spatialimages import HeaderDataError

from ganseg_dist.data.grid import NO_SIDES, Affine, Flaw, farthest_corner
from ganseg_dist.errors import DataError

Sizes = npt.NDArray[np.float64]
"""(3,) voxel sizes, one per axis."""

METRES, MICRONS = 1, 3
UNIT_OF_LENGTH = 7
"""The bits of xyzt_units that hold the unit of length; those above hold the unit of time."""
UNITS = {METRES: ("metres", 1000.0), MICRONS: ("microns", 0.001)}
"""By code: name and size in mm. Without a known unit, numbers are taken as mm."""

PLAUSIBLE_MM = (0.01, 100.0)
"""Range of a voxel's side: only light microscopes are finer, and no scanner's slices lie farther apart."""

SAME_SIZE = 1e-3
"""Largest relative difference of one size written with different numbers of digits."""

QUATERNION_RADIANS = 1e-3
"""Rotation that rounding hides: near a half turn, float32 loses the fourth number of a quaternion."""


def affine_of(
    file: Path, header: Any, stored_sizes: npt.ArrayLike, shape: Sequence[int]
) -> tuple[Affine, tuple[Flaw, ...]]:
    """The affine from voxel indices to mm, and notes on what in the header is contradictory or missing.

    `header` is nibabel's, of NIfTI-1 or 2; `stored_sizes` are (3,) pixdim as stored: nibabel replaces zeros by ones,
    and drops signs. Raises DataError, naming the file, where a voxel size or the affine is impossible.
    """
    extended = np.array(shape) > 1  # the thickness of a single plane is not checked
    sizes = np.array(stored_sizes, np.float64)
    positive = np.isfinite(sizes) & (sizes > 0)
    if not positive[extended].all():
        raise DataError(f"{file}: pixdim gives voxels of {_product(sizes)}; correct it, or export the file again")
    sizes[~positive] = 1.0
    header = header.copy()
    header["pixdim"][1:4] = sizes
    affine, notes = _choose_transform(file, header, extended, shape)
    affine[:3] *= _unit(header)[1]
    _validate_spacing(file, voxel_sizes(affine), extended, header)
    return affine, notes


def _choose_transform(
    file: Path, header: Any, extended: npt.NDArray[np.bool_], shape: Sequence[int]
) -> tuple[Affine, tuple[Flaw, ...]]:
    """The affine to use, in the header's own unit, and notes on the others."""
    sform, qform = header.get_sform(coded=True)[0], _qform(header)
    if sform is None and qform is None:
        problem = "neither sform nor qform is set, so the patient's left, front and top are not known"
        return header.get_base_affine(), (Flaw(NO_SIDES, problem, "export it again with its orientation"),)
    if sform is not None and _is_usable(sform):
        return _reconcile_transforms(
            sform, qform if qform is not None and _is_usable(qform) else None, header, extended, shape
        )
    if qform is None or not _is_usable(qform):
        raise DataError(f"{file}: affine is zero, NaN or singular, so it has no place in the world; export it again")
    if sform is None:
        return qform, ()
    return qform, (Flaw("sform", "sform is zero, NaN or singular", "qform is used"),)


def _reconcile_transforms(
    sform: Affine, qform: Affine | None, header: Any, extended: npt.NDArray[np.bool_], shape: Sequence[int]
) -> tuple[Affine, tuple[Flaw, ...]]:
    """Choose between two usable transforms, or between sform and the voxel sizes; in the header's own unit."""
    scale, sizes, mm = voxel_sizes(sform), np.array(header["pixdim"][1:4], np.float64), _unit(header)[1]
    if not np.allclose(scale[extended], sizes[extended], rtol=SAME_SIZE, atol=0):
        problem = f"sform gives {_product(mm * scale)} mm, pixdim {_product(mm * sizes)}"
        if not np.allclose(scale[extended], 1, rtol=SAME_SIZE, atol=0):
            return sform, (Flaw("spacing", problem, "sform is used"),)
        scaled = from_matvec(sform[:3, :3] / scale * sizes, sform[:3, 3]) if qform is None else qform
        return scaled, (Flaw("spacing", problem, "pixdim is used"),)
    if qform is not None:
        distance = farthest_corner(sform, qform, shape)
        if distance > 0.5 * sizes.min() + QUATERNION_RADIANS * float(np.linalg.norm(sizes * shape)):
            axes = [_axes(affine) for affine in (sform, qform)]
            directions = "" if axes[0] == axes[1] else f", with axes to {axes[0]} and {axes[1]}"
            problem = f"sform and qform place it up to {mm * distance:.1f} mm apart{directions}"
            return sform, (Flaw("qform", problem, "sform is used"),)
    return sform, ()


def _qform(header: Any) -> Affine | None:
    """The qform; None where it is not set, NaN where its numbers are no rotation."""
    try:
        affine: Affine | None = header.get_qform(coded=True)[0]
    except (ValueError, HeaderDataError):
        return np.full((4, 4), np.nan)
    return affine


def _is_usable(affine: Affine) -> bool:
    return bool(np.isfinite(affine).all() and np.linalg.matrix_rank(affine[:3, :3]) == 3)


def _validate_spacing(file: Path, spacing: Sizes, extended: npt.NDArray[np.bool_], header: Any) -> None:
    if _fits(spacing[extended]):
        return
    lowest, highest = PLAUSIBLE_MM
    name, mm = _unit(header)
    stored = spacing[extended] / mm
    fitting = [other for other, size in (*UNITS.values(), ("mm", 1.0)) if other != name and _fits(size * stored)]
    remedy = "correct the sizes" + (f", or set xyzt_units to {fitting[0]} if that is their unit" if fitting else "")
    problem = f"voxels are {_product(spacing)} mm (xyzt_units gives {name}), beyond {lowest:g} to {highest:g}"
    raise DataError(f"{file}: {problem}; {remedy}")


def _fits(spacing: Sizes) -> bool:
    return bool(((spacing >= PLAUSIBLE_MM[0]) & (spacing <= PLAUSIBLE_MM[1])).all())


def _unit(header: Any) -> tuple[str, float]:
    """Name and size in mm of the header's unit of length."""
    code = int(header["xyzt_units"]) & UNIT_OF_LENGTH
    return UNITS.get(code, ("mm" if code == 2 else "nothing", 1.0))


def _axes(affine: Affine) -> str:
    return "".join(nib.aff2axcodes(affine))


def _product(sizes: Sizes) -> str:
    return " x ".join(f"{size:g}" for size in sizes)

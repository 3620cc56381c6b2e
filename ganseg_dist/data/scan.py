"""A case in memory: its voxels on their native grid, and that grid's place in the world."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ganseg_dist.data.cohort import COLOURS, Case, Source
from ganseg_dist.data.colours import image_plane
from ganseg_dist.data.grid import Flaw, Grid, Volume, distinct_notes, grid_flaw, reference_grid, reorient, shape_of
from ganseg_dist.data.labels import Labels
from ganseg_dist.data.listing import is_nifti
from ganseg_dist.data.mask_values import mask_plane, translate_labels, whole_numbers
from ganseg_dist.data.nifti import load_nifti
from ganseg_dist.data.picture import BRIGHTEST, Pixels, load_picture
from ganseg_dist.errors import DataError


@dataclass(frozen=True, slots=True)
class Scan:
    """One case's voxels on their native grid."""

    modalities: tuple[str, ...]
    image: Volume
    """(C, X, Y, Z) float32, intensities as stored."""
    labels: Labels | None
    """(X, Y, Z): 0 background, 1 necrotic core (or any lesion in binary sets), 2 oedema, 3 enhancing."""
    grid: Grid
    """Grid of the first modality's file; the other files are brought on its axes."""
    warnings: tuple[str, ...] = ()
    """Doubts about its files' geometry, each `FILE: what is wrong; what was done`."""
    case: str = "scan"
    """The case's name in messages."""


@dataclass(frozen=True, slots=True)
class LoadedMask:
    """A mask on its native grid."""

    labels: Labels
    """(X, Y, Z) in our label values."""
    values: tuple[int, ...]
    """The stored values in it that the case's labels define, without background."""
    grid: Grid
    flaw: Flaw | None
    """Lists values that the case's labels do not define."""


def load_scan(case: Case, modalities: Sequence[str] | None = None, *, with_mask: bool = True) -> Scan:
    """Read a case's modalities, and its mask if it has one. Files may differ in the order and direction of axes.

    Raises DataError naming the file when one cannot be read, lies on another grid than the rest, has voxels
    that are not finite, or has labels that the case's scheme does not define.
    """
    names = tuple(modalities if modalities is not None else case.images)
    missing = [name for name in names if name not in case.images]
    if missing:
        raise DataError(f"{case.id}: has no {', '.join(missing)}; it has {', '.join(case.images)}")
    volumes, grids = zip(*(load_volume(case.images[name]) for name in names), strict=True)
    reference = reference_grid(grids)
    for name, volume, grid in zip(names, volumes, grids, strict=True):
        _check_flaw(case.images[name], grid_flaw(grid, reference) or voxel_flaw(name, volume))
    labels = None
    files = [(case.images[name].files[0], grid) for name, grid in zip(names, grids, strict=True)]
    if with_mask and case.mask is not None:
        mask = load_mask(case, case.mask)
        _check_flaw(case.mask, grid_flaw(mask.grid, reference) or mask.flaw)
        labels = reorient(mask.labels, mask.grid, grids[0])
        files.append((case.mask.files[0], mask.grid))
    image = np.stack([reorient(volume, grid, grids[0]) for volume, grid in zip(volumes, grids, strict=True)])
    warnings = tuple(f"{file}: {note.problem}; {note.remedy}" for file, note in distinct_notes(files))
    return Scan(names, image.astype(np.float32, copy=False), labels, grids[0], warnings, case.id)


def load_volume(source: Source) -> tuple[Volume, Grid]:
    """One modality as (X, Y, Z) float32, and its grid. Raises DataError naming the file."""
    if is_nifti(source.files[0]):
        return load_nifti(source.files[0], source.channel)
    return _stack(source, load_picture, image_plane)


def load_mask(case: Case, mask: Source) -> LoadedMask:
    """A case's mask in our label values. Raises DataError naming a file that is unreadable or not of whole numbers."""
    values, grid = load_mask_values(mask)
    labels, present, flaw = translate_labels(values, case)
    return LoadedMask(labels, present, grid, flaw)


def load_mask_values(mask: Source) -> tuple[Volume, Grid]:
    """A mask's values as its source reads them: (X, Y, Z) whole numbers, float32. Raises DataError naming the file."""
    if is_nifti(mask.files[0]):
        values, grid = load_nifti(mask.files[0], mask.channel)
        return whole_numbers(mask.files[0], values), grid
    by_value = mask.reads is None and mask.channel is None
    return _stack(mask, partial(load_picture, is_mask=True, by_value=by_value), mask_plane)


def _stack(
    source: Source, load: Callable[[Path], Pixels], plane_of: Callable[[Path, Pixels, Source], Volume]
) -> tuple[Volume, Grid]:
    """Pictures keep their file axes (rows, columns); slices become the third axis."""
    pictures = [load(file) for file in source.files]
    first = pictures[0].shape
    for file, pixels in zip(source.files, pictures, strict=True):
        if pixels.shape != first:
            raise DataError(f"{file}: is {pixels.shape}, its neighbours {first}; a case's slices must share one size")
    planes = [plane_of(file, pixels, source) for file, pixels in zip(source.files, pictures, strict=True)]
    stack = np.stack(planes, axis=-1)
    return stack, Grid(shape_of(source.files[0], stack), None)


LARGEST_INTENSITY = 1e15
"""Up to here the sum of a volume's squares is still a float32."""


def voxel_flaw(modality: str, volume: Volume) -> Flaw | None:
    """What makes a volume unusable: NaN, infinity, intensities too large for float32 sums, a colour outside 0..255."""
    not_finite = volume.size - int(np.isfinite(volume).sum())
    if not_finite:
        problem = f"{modality} has {not_finite} voxels that are NaN or infinite"
        return Flaw("non-finite", problem, "export it again or leave the case out")
    if max(-volume.min(), volume.max()) > LARGEST_INTENSITY:
        problem = f"{modality} goes from {volume.min():g} to {volume.max():g}, beyond {LARGEST_INTENSITY:g}"
        return Flaw("range", problem, "scale its intensities down or leave the case out")
    if modality in COLOURS and (volume.min() < 0 or volume.max() > BRIGHTEST):
        problem = f"{modality} goes from {volume.min():g} to {volume.max():g}, beyond the 0 to {BRIGHTEST} of a colour"
        return Flaw("range", problem, "export it with 8 bits a channel")
    return None


def _check_flaw(source: Source, flaw: Flaw | None) -> None:
    if flaw is not None:
        raise DataError(f"{source.files[0]}: {flaw.problem}; {flaw.remedy}")

"""A case in memory: its voxels on their native grid, and where that grid lies in the world."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.affines import voxel_sizes
from nibabel.filebasedimages import ImageFileError
from nibabel.fileholders import FileHolder
from nibabel.openers import ImageOpener
from nibabel.spatialimages import HeaderDataError

from ganseg_dist.data.cohort import Case, Source
from ganseg_dist.errors import DataError

NIFTI_SUFFIXES = (".nii", ".nii.gz")
PICTURE_SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".bmp")
LOSSY_SUFFIXES = (".jpg", ".jpeg")

Volume = npt.NDArray[np.float32]
Labels = npt.NDArray[np.uint8]


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


@dataclass(frozen=True, slots=True)
class Scan:
    """One case's voxels on their native grid."""

    modalities: tuple[str, ...]
    image: Volume
    """(C, X, Y, Z) float32, intensities as stored."""
    labels: Labels | None
    """(X, Y, Z): 0 background, 1 necrotic core (or any lesion in binary sets), 2 oedema, 3 enhancing."""
    grid: Grid


def load_scan(case: Case, modalities: Sequence[str] | None = None, *, with_mask: bool = True) -> Scan:
    """Read a case's modalities, and its mask if it has one.

    Raises DataError naming the file when one cannot be read or when shapes disagree.
    """
    names = tuple(modalities if modalities is not None else case.images)
    missing = [name for name in names if name not in case.images]
    if missing:
        raise DataError(f"{case.id}: has no {', '.join(missing)}; it has {', '.join(case.images)}")
    volumes, grids = zip(*(load_volume(case.images[name]) for name in names), strict=True)
    for name, grid in zip(names, grids, strict=True):
        if grid.shape != grids[0].shape:
            raise DataError(
                f"{case.images[name].files[0]}: shape {grid.shape} differs from {names[0]}'s {grids[0].shape}; "
                "resample the case's modalities to one grid"
            )
    labels = None
    if with_mask and case.mask is not None:
        labels = load_labels(case)
        if labels.shape != grids[0].shape:
            raise DataError(
                f"{case.mask.files[0]}: mask shape {labels.shape} differs from the images' {grids[0].shape}; "
                "resample the mask to the images' grid"
            )
    return Scan(names, np.stack(volumes).astype(np.float32, copy=False), labels, grids[0])


def load_volume(source: Source) -> tuple[Volume, Grid]:
    """One modality as (X, Y, Z) float32, with its grid. Raises DataError naming the file."""
    if is_nifti(source.files[0]):
        data, affine = _load_nifti(source.files[0], source.channel)
        if data.ndim != 3:
            raise DataError(f"{source.files[0]}: is {data.ndim}-D; export it as a 3-D volume")
        shape = (int(data.shape[0]), int(data.shape[1]), int(data.shape[2]))
        return np.ascontiguousarray(data, dtype=np.float32), Grid(shape, affine)
    planes = [_load_picture(file) for file in source.files]
    first = planes[0].shape
    for file, plane in zip(source.files, planes, strict=True):
        if plane.shape != first:
            raise DataError(f"{file}: is {plane.shape}, its neighbours {first}; a case's slices must share one size")
    # Pictures keep their file axes (rows, columns); slices become the third axis.
    channels = [_channel(file, plane, source.channel) for file, plane in zip(source.files, planes, strict=True)]
    stack = np.stack(channels, axis=-1).astype(np.float32)
    return stack, Grid((stack.shape[0], stack.shape[1], stack.shape[2]), None)


def load_labels(case: Case) -> Labels:
    """The case's mask in our label values, (X, Y, Z). Raises DataError on labels the layout does not know."""
    if case.mask is None:
        raise DataError(f"{case.id}: has no mask")
    raw, _ = load_volume(case.mask)
    labels, strange = translate_labels(raw, case)
    if strange:
        raise DataError(
            f"{case.mask.files[0]}: unknown label values {', '.join(f'{value:g}' for value in strange[:5])}; "
            f"expected {', '.join(str(value) for value in case.labels)}"
        )
    return labels


def translate_labels(raw: Volume, case: Case) -> tuple[Labels, tuple[float, ...]]:
    """A mask as stored to our label values, and the stored values that the case's labels do not know."""
    meanings = case.labels
    if case.mask is not None and _is_black_and_white(case, raw):
        meanings = {0: 0, 255: 1}
        if case.mask.files[0].suffix.lower() in LOSSY_SUFFIXES:
            raw = np.where(raw > 127, np.float32(255), np.float32(0))
    labels = np.zeros(raw.shape, np.uint8)
    known = np.zeros(raw.shape, bool)
    for stored, ours in meanings.items():
        here = raw == stored
        labels[here] = ours
        known |= here
    return labels, tuple(float(value) for value in np.unique(raw[~known]))


def _is_black_and_white(case: Case, raw: Volume) -> bool:
    """Whether a binary mask is a picture that writes 255 for 1."""
    is_picture = case.mask is not None and not is_nifti(case.mask.files[0])
    return is_picture and set(case.labels) == {0, 1} and bool(raw.max(initial=0) > 1)


def is_nifti(path: Path) -> bool:
    """By name: the content is checked on reading."""
    return path.name.lower().endswith(NIFTI_SUFFIXES)


def _load_nifti(path: Path, channel: int | None) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64]]:
    """One channel's voxels and the affine; a large 4-D file is never in memory whole."""
    try:
        with ImageOpener(path) as stream:
            image = type(nib.load(path)).from_file_map({"image": FileHolder(fileobj=stream)})
            channels = int(image.shape[3]) if len(image.shape) == 4 else None
            index = 0 if channels == 1 else channel
            if channels is None or (index is not None and index < channels):
                data = np.asanyarray(image.dataobj if channels is None else image.dataobj[..., index])
                stream.read(1)  # at the end of a compressed file this compares its checksum
                return data, np.asarray(image.affine, dtype=np.float64)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; check the name or leave the case out") from None
    except (ImageFileError, HeaderDataError, OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"{path}: is not a readable NIfTI file ({_reason(error)}); copy or export it again") from None
    if channel is None:
        raise DataError(f"{path}: has {channels} channels; name one of them in a manifest, as in FILE#0")
    raise DataError(f"{path}: has {channels} channels, no number {channel}; channels count from 0")


def _load_picture(path: Path) -> npt.NDArray[Any]:
    import tifffile
    from PIL import Image, UnidentifiedImageError

    try:
        if path.suffix.lower() in (".tif", ".tiff"):
            return np.asarray(tifffile.imread(path))
        with Image.open(path) as picture:
            return np.asarray(picture)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; check the name or leave the case out") from None
    except (UnidentifiedImageError, tifffile.TiffFileError, OSError, ValueError) as error:
        raise DataError(f"{path}: is not a readable picture ({_reason(error)}); copy or export it again") from None


def _channel(file: Path, plane: npt.NDArray[Any], channel: int | None) -> npt.NDArray[Any]:
    if plane.ndim == 2:
        return plane
    if plane.ndim != 3 or (channel or 0) >= plane.shape[2]:
        raise DataError(f"{file}: is an array of {plane.shape}, has no channel {channel or 0}; channels count from 0")
    return plane[..., channel or 0]


def _reason(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[0][:120] if text else type(error).__name__

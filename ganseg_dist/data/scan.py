"""A case in memory: its voxels on their native grid, and where that grid lies in the world."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.affines import voxel_sizes
from nibabel.fileholders import FileHolder
from nibabel.openers import ImageOpener

from ganseg_dist.data.cohort import COLOURS, Case, Source
from ganseg_dist.errors import DataError

NIFTI_SUFFIXES = (".nii", ".nii.gz")
PICTURE_SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".bmp")
LOSSY_SUFFIXES = (".jpg", ".jpeg")

BRIGHTEST = 255
"""The largest value of a picture's 8 bits."""

COLOURFUL = 1 / 16
"""How far apart a pixel's channels must lie, as a share of their range, to be a colour: JPEG tints greys by less."""

COLOURFUL_SHARE = 0.05
"""Share of such pixels in a picture in colour; a coloured stamp on a grey one takes less."""

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
class Flaw:
    """Why a file that can be read cannot be used; preflight lists it, loading refuses it in the same words."""

    check: str
    """A short stable name, such as `shape` or `non-finite`."""
    problem: str
    remedy: str


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

    Raises DataError naming the file when one cannot be read, lies on another grid than the rest, has voxels
    that are not finite, or labels that the layout does not know.
    """
    names = tuple(modalities if modalities is not None else case.images)
    missing = [name for name in names if name not in case.images]
    if missing:
        raise DataError(f"{case.id}: has no {', '.join(missing)}; it has {', '.join(case.images)}")
    volumes, grids = zip(*(load_volume(case.images[name]) for name in names), strict=True)
    reference = reference_grid(grids)
    for name, volume, grid in zip(names, volumes, grids, strict=True):
        _refuse(case.images[name], grid_flaw(grid, reference) or voxel_flaw(name, volume))
    labels = None
    if with_mask and case.mask is not None:
        raw, grid = load_volume(case.mask)
        labels, strange = translate_labels(raw, case)
        _refuse(case.mask, grid_flaw(grid, reference) or label_flaw(strange, case))
    return Scan(names, np.stack(volumes).astype(np.float32, copy=False), labels, grids[0])


def load_volume(source: Source) -> tuple[Volume, Grid]:
    """One modality as (X, Y, Z) float32, with its grid. Raises DataError naming the file."""
    if is_nifti(source.files[0]):
        return _load_nifti(source.files[0], source.channel)
    planes = [_load_picture(file, in_colour=_wants_colours(source)) for file in source.files]
    first = planes[0].shape
    for file, plane in zip(source.files, planes, strict=True):
        if plane.shape != first:
            raise DataError(f"{file}: is {plane.shape}, its neighbours {first}; a case's slices must share one size")
    # Pictures keep their file axes (rows, columns); slices become the third axis.
    channels = [_plane(file, plane, source) for file, plane in zip(source.files, planes, strict=True)]
    stack = np.stack(channels, axis=-1)
    return stack, _grid(source.files[0], stack, None)


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


def voxel_flaw(modality: str, volume: Volume) -> Flaw | None:
    """NaN or infinity, one of which would spread over the whole prepared volume; a colour beyond what is displayed."""
    strange = volume.size - int(np.isfinite(volume).sum())
    if strange:
        problem = f"{modality} has {strange} voxels that are NaN or infinite"
        return Flaw("non-finite", problem, "export it again or leave the case out")
    if modality in COLOURS and (volume.min() < 0 or volume.max() > BRIGHTEST):
        problem = f"{modality} goes from {volume.min():g} to {volume.max():g}, beyond the 0 to {BRIGHTEST} of a colour"
        return Flaw("range", problem, "export it with 8 bits a channel")
    return None


def label_flaw(strange: Sequence[float], case: Case) -> Flaw | None:
    """Stored values that `translate_labels` did not know."""
    if not strange:
        return None
    in_colour = case.mask is not None and case.mask.reads == "colour code"
    written = _as_rgb if in_colour else "{:g}".format
    values = ", ".join(written(value) for value in strange[:5]) + (", ..." if len(strange) > 5 else "")
    problem = f"unknown label values {values}; known are {', '.join(written(value) for value in case.labels)}"
    remedy = "add these colours to labels.json" if in_colour else "recode the mask or name its label scheme"
    return Flaw("labels", problem, remedy)


def translate_labels(raw: Volume, case: Case) -> tuple[Labels, tuple[float, ...]]:
    """A mask as stored to our label values, and the stored values that the case's labels do not know."""
    meanings = case.labels
    if case.mask is not None and _is_black_and_white(case, raw):
        meanings = {0: 0, 255: 1}
        if is_lossy(case.mask.files[0]):
            raw = np.where(raw > BRIGHTEST / 2, np.float32(BRIGHTEST), np.float32(0))
    elif case.mask is not None and case.mask.reads == "colour code" and is_lossy(case.mask.files[0]):
        raw = _nearest_code(raw, tuple(meanings))
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


def is_lossy(path: Path) -> bool:
    """Whether the format blurs edges, so that values near a mask's own stand in it."""
    return path.suffix.lower() in LOSSY_SUFFIXES


def shows_colour(path: Path) -> bool:
    """Whether a picture is seen in colour: many are stored as red, green and blue and are grey all the same.

    Raises DataError when it cannot be read.
    """
    plane = _load_picture(path, in_colour=True)[::2, ::2]  # enough pixels to see it by
    if not _has_colours(plane):
        return False
    reach = np.ptp(plane[..., :3].astype(np.float32), axis=2)
    largest = np.iinfo(plane.dtype).max if np.issubdtype(plane.dtype, np.integer) else 1.0
    return bool((reach > COLOURFUL * largest).mean() > COLOURFUL_SHARE)


def colour_code(red: int, green: int, blue: int) -> int:
    """0xRRGGBB of channels in 0..255."""
    return red << 16 | green << 8 | blue


def _refuse(source: Source, flaw: Flaw | None) -> None:
    if flaw is not None:
        raise DataError(f"{source.files[0]}: {flaw.problem}; {flaw.remedy}")


def _load_nifti(path: Path, channel: int | None) -> tuple[Volume, Grid]:
    """One channel's voxels and their grid; a large 4-D file is never in memory whole."""
    with _decoding(path, "NIfTI file"), ImageOpener(path) as stream:
        image = type(nib.load(path)).from_file_map({"image": FileHolder(fileobj=stream)})
        channels = int(image.shape[3]) if len(image.shape) == 4 else None
        index = 0 if channels == 1 else channel
        if channels is not None and index is None:
            raise DataError(f"{path}: has {channels} channels; name one of them in a manifest, as in FILE#0")
        if channels is not None and index is not None and index >= channels:
            raise DataError(f"{path}: has {channels} channels, no number {channel}; channels count from 0")
        data = _as_float(np.asanyarray(image.dataobj if channels is None else image.dataobj[..., index]))
        stream.read(1)  # at the end of a compressed file this compares its checksum
        return data, _grid(path, data, np.asarray(image.affine, dtype=np.float64))


def _wants_colours(source: Source) -> bool:
    return source.channel is not None or source.reads is not None


def _load_picture(path: Path, *, in_colour: bool) -> npt.NDArray[Any]:
    """(rows, columns) or (rows, columns, channels); in_colour: colours where the file stores a palette or inks."""
    import tifffile
    from PIL import Image

    with _decoding(path, "picture"):
        if path.suffix.lower() in (".tif", ".tiff"):
            with _quiet("tifffile"):  # it logs what it then raises, or leaves out without an error
                pages = np.asarray(tifffile.imread(path))
            if not pages.size:
                raise ValueError("it holds no page; the file was cut off")
            return pages
        with Image.open(path) as picture:
            stores_others = picture.mode in ("P", "PA", "CMYK", "YCbCr", "LAB", "HSV")
            return np.asarray(picture.convert("RGB") if in_colour and stores_others else picture)


def _plane(file: Path, plane: npt.NDArray[Any], source: Source) -> Volume:
    """The one value a pixel that the source asks for, (rows, columns)."""
    if source.reads is not None:
        with _decoding(file, "picture"):
            return _read(file, plane, source.reads)
    channel = source.channel or 0
    with _decoding(file, "picture"):
        if plane.ndim == 2:
            return _as_float(plane)
        if plane.ndim == 3 and channel < plane.shape[2]:
            return _as_float(plane[..., channel])
    raise DataError(f"{file}: is an array of {plane.shape}, has no channel {channel}; channels count from 0")


def _read(file: Path, plane: npt.NDArray[Any], reads: str) -> Volume:
    """`Source.reads` of a picture, with or without colours, with or without transparency."""
    if plane.ndim not in (2, 3):
        raise DataError(f"{file}: is an array of {plane.shape}; save it as a 2-D picture")
    grey = plane if plane.ndim == 2 else plane[..., 0]
    red, green, blue = (plane[..., channel] if _has_colours(plane) else grey for channel in range(3))
    if reads == "luminance":
        # ITU-R BT.601 luma; equal channels give their own value back.
        luma = 0.299 * red + 0.587 * green + 0.114 * blue
        return np.where((red == green) & (green == blue), red, luma).astype(np.float32)
    if reads == "not black":
        brightest = np.maximum(np.maximum(red, green), blue)
        return np.asarray(brightest > (BRIGHTEST / 2 if is_lossy(file) else 0), np.float32)
    # colour_code, for whole planes: float32 holds its 24 bits exactly.
    return np.asarray(red * np.float32(1 << 16) + green * np.float32(1 << 8) + blue, np.float32)


def _has_colours(plane: npt.NDArray[Any]) -> bool:
    return plane.ndim == 3 and plane.shape[2] >= 3


def _nearest_code(codes: Volume, known: Sequence[int]) -> Volume:
    """Each pixel's nearest known colour, by the distance between their channels."""
    palette = np.array([colour_channels(code) for code in known])
    found, where = np.unique(codes, return_inverse=True)
    apart = np.linalg.norm(np.array([colour_channels(int(code)) for code in found])[:, None] - palette, axis=2)
    nearest = np.array(known, np.float32)[apart.argmin(axis=1)]
    return np.asarray(nearest[where].reshape(codes.shape))


def colour_channels(code: int) -> tuple[int, int, int]:
    """The inverse of `colour_code`: red, green and blue."""
    return code >> 16, code >> 8 & 255, code & 255


def _as_rgb(code: float) -> str:
    return str(colour_channels(int(code)))


def is_image(path: Path) -> bool:
    """By name: NIfTI or a picture."""
    return is_nifti(path) or path.suffix.lower() in PICTURE_SUFFIXES


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def _decoding(file: Path, kind: str) -> Iterator[None]:
    """One line for whatever a decoder makes of a file: on damaged bytes each raises errors of a dozen classes."""
    try:
        yield
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{file}: no such file; check the name or leave the case out") from None
    except MemoryError:
        raise DataError(f"{file}: needs more memory than this machine has; use a larger one or smaller files") from None
    except Exception as error:
        raise DataError(f"{file}: is not a readable {kind} ({reason(error)}); copy or export it again") from None


def _as_float(voxels: npt.NDArray[Any]) -> Volume:
    """Same kind only: a cast that would drop a colour or an imaginary part raises TypeError."""
    return voxels.astype(np.float32, order="C", casting="same_kind", subok=False, copy=False)


def _grid(file: Path, volume: Volume, affine: npt.NDArray[np.float64] | None) -> Grid:
    """Raises DataError naming the file where there is nothing to lay out, or no way to lay it out."""
    if volume.ndim != 3:
        raise DataError(f"{file}: is {volume.ndim}-D; export it as a 3-D volume")
    if volume.size == 0:
        raise DataError(f"{file}: has no voxels; export it again or leave the case out")
    if affine is not None and not (np.isfinite(affine).all() and np.linalg.matrix_rank(affine[:3, :3]) == 3):
        raise DataError(f"{file}: affine is zero, NaN or singular, so it has no place in the world; export it again")
    return Grid((int(volume.shape[0]), int(volume.shape[1]), int(volume.shape[2])), affine)


def reason(error: Exception) -> str:
    """A library's error in at most a line."""
    text = str(error).strip().splitlines()
    return text[0][:120] if text else type(error).__name__

"""Which files are images, by their names, and one-line errors for files that a decoder cannot read."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ganseg_dist.data.listing import check_file
from ganseg_dist.errors import DataError, one_line

NIFTI_SUFFIXES = (".nii", ".nii.gz")
PICTURE_SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".bmp")

Volume = npt.NDArray[np.float32]


def is_nifti(path: Path) -> bool:
    """Whether the name is that of a NIfTI file; the content is checked on reading."""
    return path.name.lower().endswith(NIFTI_SUFFIXES)


def is_picture(path: Path) -> bool:
    """Whether the name is that of a picture; the content is checked on reading."""
    return path.suffix.lower() in PICTURE_SUFFIXES


def is_image(path: Path) -> bool:
    """Whether the name is that of a NIfTI file or of a picture; the content is checked on reading."""
    return is_nifti(path) or is_picture(path)


def without_suffix(name: str) -> str:
    """An image's name without `.nii.gz`, `.nii` or a picture's suffix, in any case."""
    suffixes = sorted((*NIFTI_SUFFIXES, *PICTURE_SUFFIXES), key=len, reverse=True)
    suffix = next((suffix for suffix in suffixes if name.lower().endswith(suffix)), "")
    return name[: len(name) - len(suffix)]


@contextmanager
def decoding(file: Path, kind: str) -> Iterator[None]:
    """Turn any error of a decoder into a one-line DataError: on damaged bytes each raises a dozen classes of errors."""
    try:
        check_file(file)
        yield
    except DataError:
        raise
    except MemoryError:
        raise DataError(f"{file}: needs more memory than this machine has; use a larger one or smaller files") from None
    except Exception as error:
        raise DataError(
            f"{file}: is not a readable {kind} ({one_line(error, longest=120)}); copy or export it again"
        ) from None


@contextmanager
def quiet(name: str) -> Iterator[None]:
    """Silence a library's logger in the block: it logs, without the file's name, what is raised or returned anyway."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)


def as_float(voxels: npt.NDArray[Any]) -> Volume:
    """Cast to float32, of the same kind only: dropping a colour or an imaginary part raises TypeError."""
    return voxels.astype(np.float32, order="C", casting="same_kind", subok=False, copy=False)

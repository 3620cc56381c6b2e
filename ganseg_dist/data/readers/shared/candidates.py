"""Choose among several candidate files: copies of one image are interchangeable, others are an error naming both."""

from __future__ import annotations

import filecmp
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from ganseg_dist.data.formats import is_nifti, without_suffix
from ganseg_dist.data.listing import composed
from ganseg_dist.data.nifti import same_volumes
from ganseg_dist.data.picture import load_picture
from ganseg_dist.errors import DataError


def one_of(files: Sequence[Path], what: str) -> Path:
    """The first of several files that all hold the same image; `what` is their role in messages.

    Raises DataError naming two that differ, as a silent choice could be the wrong one.
    """
    first, *others = files
    for other in others:
        if not same_image(first, other):
            second = other.name if other.parent == first.parent else other
            raise DataError(f"{first}: could be {what}, and so could {second}, which differs; keep or rename one")
    return first


def by_stem(files: Iterable[Path], what: str, stem_of: Callable[[Path], str] | None = None) -> Mapping[str, Path]:
    """Files by their `composed` names without suffix, or by `stem_of`. Raises DataError where two of a stem differ."""
    named: dict[str, list[Path]] = {}
    for file in files:
        stem = without_suffix(file.name) if stem_of is None else stem_of(file)
        named.setdefault(composed(stem), []).append(file)
    return {stem: one_of(several, f"{what} {Path(stem).name}") for stem, several in named.items()}


def same_image(file: Path, other: Path) -> bool:
    """Whether two files hold the same pixels, or the same voxels in the same place; False where one is unreadable."""
    try:
        if filecmp.cmp(file, other, shallow=False):
            return True
        if is_nifti(file) and is_nifti(other):
            return same_volumes(file, other)
        if is_nifti(file) or is_nifti(other):
            return False
        return np.array_equal(load_picture(file), load_picture(other))
    except (OSError, DataError):
        return False

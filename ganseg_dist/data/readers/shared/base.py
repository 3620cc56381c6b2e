"""What all readers share: their interface, the names of modalities and masks, and the choice among several files."""

from __future__ import annotations

import csv
import filecmp
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import numpy as np

from ganseg_dist.data.cohort import Case
from ganseg_dist.data.labels import LabelScheme
from ganseg_dist.data.listing import check_file, composed, is_nifti, without_suffix
from ganseg_dist.data.nifti import same_volumes
from ganseg_dist.data.picture import load_picture
from ganseg_dist.errors import DataError

MODALITY_NAMES = {
    "t1": ("t1", "t1w", "t1n", "t1pre"),
    "t1ce": ("t1ce", "t1c", "t1gd", "t1wgd", "t1post", "t1gado", "t1contrast"),
    "t2": ("t2", "t2w"),
    "flair": ("flair", "t2f", "t2flair"),
}
"""Our modality names to those of data sets, in lower case without punctuation."""

_MASK = r"(seg(m|mentation)?s?|(brain|lesion)?_?masks?|labels?(tr|ts)?|annotations?|ground[_ -]?truth|gtv?)"
MASK_FOLDER = re.compile(_MASK, re.IGNORECASE)
MASK_NAME = re.compile(rf"(.+[_.-])?{_MASK}", re.IGNORECASE)

_CANONICAL = {alias: modality for modality, aliases in MODALITY_NAMES.items() for alias in aliases}


class Reader(ABC):
    """One layout of files on disk: a module of `data/readers` with an instance as READER, or one of another package."""

    name: ClassVar[str]
    """Its name for `--layout`: that of its module, or of its entry point."""
    describes: ClassVar[str]
    """The files of the layout, in a line, for messages."""
    takes_labels: ClassVar[bool] = False
    """Whether its masks hold label values, whose scheme `--labels` may set."""
    order: ClassVar[int] = 50
    """Readers are tried in rising order: low for a layout that no folder has by accident, high for one that many
    folders match."""
    names_patients: ClassVar[bool] = True
    """Whether every case's patient is known; else a case whose patient is unknown has its id as its patient."""
    lists_cases: ClassVar[bool] = False
    """Whether a file lists the cases, so that images beside them are left out on purpose."""
    unread_folders: ClassVar[tuple[str, ...]] = ()
    """Folders in lower case that the layout has for other purposes."""

    @abstractmethod
    def recognises(self, root: Path) -> bool:
        """Whether the names of these files match this layout."""

    @abstractmethod
    def cases(self, root: Path, scheme: LabelScheme | None = None) -> tuple[Case, ...]:
        """Every case under a recognised root, in name order. Raises DataError.

        `scheme` is for all masks; None: the scheme that files or names give, else UNSTATED.
        """


def canonical_modality(name: str) -> str:
    """`T1w` or `t1n` to `t1`, `T1-Gd` to `t1ce`; any other name is kept, in lower case."""
    bare = re.sub(r"[^a-z0-9]", "", name.lower())
    return _CANONICAL.get(bare, name.strip().lower())


def is_mask_name(name: str) -> bool:
    """Whether a file of this name without suffix, or a column of this name, is a mask and not an image."""
    return MASK_NAME.fullmatch(name) is not None


def is_mask_folder(name: str) -> bool:
    """Whether the name is that of a folder of masks; `with_mask` and `lesion` may be classes."""
    return MASK_FOLDER.fullmatch(name) is not None


@contextmanager
def reading_csv(file: Path) -> Iterator[None]:
    """Turn errors while a CSV is read into a one-line DataError that names the file."""
    check_file(file)
    try:
        yield
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file}: cannot be read as CSV ({error}); save it as comma-separated UTF-8") from None


def in_numeric_order(files: Iterable[Path]) -> tuple[Path, ...]:
    """`slice_2` before `slice_10`. Raises DataError naming two of one number, such as `slice_2` and `slice_02`."""
    ordered = sorted(files, key=_numbers)
    for file, following in pairwise(ordered):
        if _numbers(file) == _numbers(following):
            raise DataError(f"{file}: has the number of {following.name}; a stack has one file a slice, rename one")
    return tuple(ordered)


def _numbers(file: Path) -> list[tuple[int, str]]:
    return [_as_number(part) for part in re.split(r"(\d+)", file.name)]


def _as_number(part: str) -> tuple[int, str]:
    return (int(part), "") if part.isdecimal() else (-1, part)


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

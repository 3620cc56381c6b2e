"""Which files of a folder are data, which are images, and one-line errors for files that cannot be read."""

from __future__ import annotations

import logging
import os
import stat
import unicodedata
from codecs import BOM_UTF8
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from ganseg_dist.errors import DataError, one_line
from ganseg_dist.files import check_regular, parse_json, read_bytes

SYSTEM_NAMES = (
    "thumbs.db",
    "desktop.ini",
    "__macosx",
    "@eadir",
    "#recycle",
    "$recycle.bin",
    "system volume information",
    "lost+found",
)
"""Names that Windows, macOS, Synology and ext4 leave in folders, in lower case."""

UNFINISHED = (".part", ".partial", ".crdownload", ".download", ".filepart", ".aria2", ".tmp")
"""Endings of a name while its file, or Safari's folder of it, is being downloaded."""


NIFTI_SUFFIXES = (".nii", ".nii.gz")
PICTURE_SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".bmp")


def is_data_name(name: str) -> bool:
    """False for hidden names (AppleDouble's `._*` among them), a system's own and unfinished downloads."""
    lower = name.lower()
    return not lower.startswith((".", "~$")) and lower not in SYSTEM_NAMES and not lower.endswith(UNFINISHED)


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


def data_files(folder: Path) -> tuple[Path, ...]:
    """The files that lie directly in a folder, by name; none where there is no such folder.

    Left out are the names that `is_data_name` excludes, and pipes, sockets and devices. A broken link is listed, so
    that opening it raises an error.

    Raises DataError naming a folder that may not be listed.
    """
    return tuple(sorted(folder / entry.name for entry in _entries(folder) if _is_file(entry)))


def data_folders(root: Path, depth: int = 1) -> Iterator[Path]:
    """The folders below a folder down to a depth, the nearest first, then by name.

    Links are followed, except one that leads back to a folder that contains it.

    Raises DataError naming a folder that may not be listed.
    """
    waiting: deque[tuple[Path, tuple[tuple[int, int], ...]]] = deque([(root, (_identity(root),))])
    while waiting:
        folder, above = waiting.popleft()
        if len(above) > depth:
            continue
        for name in sorted(entry.name for entry in _entries(folder) if _is_folder(entry)):
            below = folder / name
            if (identity := _identity(below)) not in above:
                waiting.append((below, (*above, identity)))
                yield below


def files_below(root: Path, depth: int) -> Iterator[Path]:
    """The `data_files` of a folder and of the folders below it down to a depth, the nearest first."""
    return chain.from_iterable(map(data_files, chain([root], data_folders(root, depth))))


def file_called(folder: Path, name: str) -> Path | None:
    """The file of this name in any case; None where there is none.

    Raises DataError where there are two, or where the entry is not a file.
    """
    matches = sorted(entry.name for entry in _entries(folder) if entry.name.lower() == name.lower())
    if len(matches) > 1:
        raise DataError(f"{folder / matches[0]}: lies beside {matches[1]}; leave one of the two")
    if not matches:
        return None
    check_file(folder / matches[0])
    return folder / matches[0]


def check_file(file: Path) -> None:
    """Raises DataError for what cannot be opened as a file: a broken link, a folder, a pipe."""
    try:
        check_regular(file)
    except FileNotFoundError:
        if file.is_symlink():
            raise DataError(
                f"{file}: is a link to {file.readlink()}, which is not there; fetch that file or correct the link"
            ) from None
        raise DataError(f"{file}: no such file; check the name or leave the case out") from None
    except OSError as error:
        raise DataError(f"{file}: cannot be opened ({error.strerror}); give a regular file that may be read") from None


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


def composed(name: str) -> str:
    """A name with each accented letter as one character: macOS and its archives store `é` as `e` and an accent."""
    return unicodedata.normalize("NFC", name)


def found_path(path: Path) -> Path:
    """A path as its folders store it where the two differ only in how accents are stored; else the path itself."""
    if str(path).isascii() or os.path.lexists(path):
        return path
    parent = found_path(path.parent)
    matches = sorted(entry.name for entry in _entries(parent) if composed(entry.name) == composed(path.name))
    return parent / (matches[0] if matches else path.name)


def read_json(file: Path, remedy: str = "export it again") -> Any:
    """The content of a JSON file. Raises DataError naming it."""
    check_file(file)
    try:
        return parse_json(read_bytes(file).removeprefix(BOM_UTF8))
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: is not readable JSON ({error}); {remedy}") from None


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from (entry for entry in entries if is_data_name(entry.name))
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be listed ({error.strerror}); change its permissions or move it elsewhere"
        ) from None


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        mode = entry.stat().st_mode
    except OSError:
        return True
    return stat.S_ISREG(mode)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _identity(folder: Path) -> tuple[int, int]:
    """Device and inode of the folder that a path leads to."""
    try:
        status = folder.stat()
    except OSError as error:
        raise DataError(f"{folder}: cannot be opened ({error.strerror}); check its links and permissions") from None
    return status.st_dev, status.st_ino

"""Which files of a folder are data, and one line for one that cannot be opened."""

from __future__ import annotations

import os
import stat
import unicodedata
from codecs import BOM_UTF8
from collections import deque
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from ganseg_dist.errors import DataError
from ganseg_dist.files import check_regular, parse_json, read_bytes

OF_SYSTEMS = (
    "thumbs.db",
    "desktop.ini",
    "__macosx",
    "@eadir",
    "#recycle",
    "$recycle.bin",
    "system volume information",
    "lost+found",
)
"""What Windows, macOS, Synology and ext4 leave in folders, in lower case."""

UNFINISHED = (".part", ".partial", ".crdownload", ".download", ".filepart", ".aria2", ".tmp")
"""How a name ends while its file, or Safari's folder of it, is still being downloaded."""


def is_data_name(name: str) -> bool:
    """False for hidden names (AppleDouble's `._*` among them), a system's own and unfinished downloads."""
    lower = name.lower()
    return not lower.startswith((".", "~$")) and lower not in OF_SYSTEMS and not lower.endswith(UNFINISHED)


def data_files(folder: Path) -> tuple[Path, ...]:
    """The files that lie directly in a folder, by name; none where there is no such folder.

    Left out is what `is_data_name` leaves out, and what cannot be a file: pipes, sockets, devices. A link that leads
    nowhere stays: whoever opens it says so.

    Raises DataError naming a folder that may not be listed.
    """
    return tuple(sorted(folder / entry.name for entry in _entries(folder) if _is_file(entry)))


def data_folders(root: Path, depth: int = 1) -> Iterator[Path]:
    """The folders below a folder down to a depth, the nearest first, then by name.

    Links are followed, but for one that leads back to a folder it lies in.

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
    """The file of this name, whose case does not matter; None where there is none.

    Raises DataError where there are two, or where what is called so is no file.
    """
    found = sorted(entry.name for entry in _entries(folder) if entry.name.lower() == name.lower())
    if len(found) > 1:
        raise DataError(f"{folder / found[0]}: stands beside {found[1]}; leave one of the two")
    if not found:
        return None
    check_file(folder / found[0])
    return folder / found[0]


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


def composed(name: str) -> str:
    """A name with each accented letter as one character: macOS and its archives store `é` as `e` and an accent."""
    return unicodedata.normalize("NFC", name)


def found_path(path: Path) -> Path:
    """A path as its folders store it, where that differs in how accents are stored alone; else the path itself."""
    if str(path).isascii() or os.path.lexists(path):
        return path
    parent = found_path(path.parent)
    alike = sorted(entry.name for entry in _entries(parent) if composed(entry.name) == composed(path.name))
    return parent / (alike[0] if alike else path.name)


def read_json(file: Path, remedy: str = "export it again") -> Any:
    """What a JSON file holds. Raises DataError naming it."""
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
    """Of the folder that a path leads to."""
    try:
        found = folder.stat()
    except OSError as error:
        raise DataError(f"{folder}: cannot be opened ({error.strerror}); check its links and permissions") from None
    return found.st_dev, found.st_ino

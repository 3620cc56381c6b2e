"""Reads files that others wrote: paths stay in their folder, only regular files are opened, and JSON is strict."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import os
import stat
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path, PureWindowsPath
from typing import Any, NoReturn

from ganseg_dist.errors import DataError, GansegError


def check_regular(path: Path) -> None:
    """Raises OSError for a path that is no regular file: a pipe would block, and a device may never end.

    The error is FileNotFoundError for a missing path.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        kind = "is a folder" if path.is_dir() else "is not a regular file"
        raise OSError(errno.EINVAL, kind, str(path))


@contextmanager
def open_regular(path: Path) -> Iterator[BufferedReader]:
    """A regular file, opened for reading. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(descriptor, "rb") as stream:  # checked after opening: the file cannot be exchanged in between
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "is not a regular file", str(path))
        yield stream


def read_bytes(path: Path) -> bytes:
    """A regular file's content. Raises OSError."""
    with open_regular(path) as stream:
        return stream.read()


def sha256(path: Path) -> str:
    """A regular file's digest, in hexadecimal. Raises OSError."""
    with open_regular(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_text(path: Path) -> str:
    """A regular file's UTF-8 text. Raises OSError or ValueError."""
    return read_bytes(path).decode("utf-8")


def read_csv(path: Path) -> list[dict[str, str]]:
    """A regular file's rows by column, as `atomic.write_csv` writes them. Raises OSError or ValueError."""
    try:
        rows = list(csv.reader(io.StringIO(read_text(path), newline="")))
    except csv.Error as error:
        raise ValueError(str(error)) from None
    header = rows[0] if rows else []
    uneven = next((number for number, row in enumerate(rows, start=1) if len(row) != len(header)), None)
    if uneven is not None:
        raise ValueError(f"row {uneven} has {len(rows[uneven - 1])} cells, the header {len(header)}")
    return [dict(zip(header, row, strict=True)) for row in rows[1:]]


def read_json(path: Path, *, finite: bool = True) -> Any:
    """A regular file's JSON. Raises OSError or ValueError, as `parse_json` does."""
    return parse_json(read_bytes(path), finite=finite)


def parse_json(text: str | bytes, *, finite: bool = True) -> Any:
    """Parse JSON. Raises ValueError for invalid JSON and for one that is nested too deeply.

    Args:
        finite: reject NaN and Infinity, which Python reads and writes and RFC 8259 does not allow.
    """
    try:
        return json.loads(text, parse_constant=_reject_constant if finite else None)
    except RecursionError:
        raise ValueError("it nests too deep") from None


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def why_not_inside(relative: object) -> str | None:
    """Why a value is not the relative path of a file inside a folder; None if it is.

    Windows' drives and separators are recognised on every system, as files move between systems.
    """
    if not isinstance(relative, str):
        return "is no text"
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in relative):
        return "holds a character that no path may have"
    path = PureWindowsPath(relative)  # recognises both separators
    if path.drive or path.root:
        return "is not relative"
    depth = 0
    for part in path.parts:
        depth += -1 if part == ".." else 1
        if depth < 0:
            return "leads out of its folder"
    return None if depth else "names no file"


def confined(
    root: Path,
    relative: object,
    source: object,
    remedy: str,
    *,
    error: type[GansegError] = DataError,
    follow_links: bool = False,
) -> Path:
    """The path below `root` that a file or a message names; it need not exist.

    Raises the error for a path that leads outside, naming its source, such as a file and its line, and the remedy. A
    symbolic link may lead outside where `follow_links`, as in the user's folders.
    """
    problem = why_not_inside(relative)
    if problem is not None:
        raise error(f"{source}: path {relative!r} {problem}; {remedy}")
    path = root / os.path.normpath(str(relative))
    if not follow_links and not _resolved(path).is_relative_to(root.resolve()):
        raise error(f"{source}: {path.relative_to(root)} is a link that leads outside; {remedy}")
    return path


def _resolved(path: Path) -> Path:
    """The resolved path; for circular links the file system's root, which lies inside no folder."""
    try:
        return path.resolve()
    except (OSError, RuntimeError):
        return Path(path.anchor or "/")

"""Validates paths from files and messages: they must stay in the folder to which they are relative."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path, PureWindowsPath

from ganseg_dist.errors import DataError, GansegError


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

    Args:
        source: what holds the path, such as a file and its line, for the error's message.
        remedy: what to do about a path that leads outside, for the error's message.
        error: the class to raise for one.
        follow_links: whether a symbolic link may lead outside, as in the user's folders.
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

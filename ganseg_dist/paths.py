"""Paths out of files and messages: whatever they say, they stay in the folder that they are relative to."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path, PureWindowsPath

from ganseg_dist.errors import DataError, GansegError


def why_not_inside(relative: object) -> str | None:
    """Why something is not the path of a file below the folder that it is relative to; None where it is.

    What Windows takes for a drive or for a way up is one here too: a file is carried from one system to the other.
    """
    if not isinstance(relative, str):
        return "is no text"
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in relative):
        return "holds a character that no path may have"
    path = PureWindowsPath(relative)  # whose separators are both
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
    """The path below `root` that a file or a message names; nothing needs to be there.

    Args:
        source: what holds the path, a file and perhaps its line, for the message.
        remedy: what to do where the path leads outside, for the message.
        error: what is raised then.
        follow_links: whether a symbolic link may lead outside, as in folders that are the user's own.
    """
    problem = why_not_inside(relative)
    if problem is not None:
        raise error(f"{source}: path {relative!r} {problem}; {remedy}")
    path = root / os.path.normpath(str(relative))
    if not follow_links and not _resolved(path).is_relative_to(root.resolve()):
        raise error(f"{source}: {path.relative_to(root)} is a link that leads outside; {remedy}")
    return path


def _resolved(path: Path) -> Path:
    """Of links that lead in a circle, the file system's root, which is inside of nothing."""
    try:
        return path.resolve()
    except (OSError, RuntimeError):
        return Path(path.anchor or "/")

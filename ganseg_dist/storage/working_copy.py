"""A working folder's record of its remote copy: NAME/.copy.json, which is not copied itself."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from pydantic import TypeAdapter

from ganseg_dist.atomic import UNFINISHED, write_json
from ganseg_dist.files import why_not_inside

FILE = ".copy.json"
LOCKS = "*.lock"
RAY_STATE = "checkpoints/ray"
"""State of the Ray cluster that trained last, which another cluster does not need."""

Stamp = tuple[int, int]
"""A file's size in bytes and its modification time in nanoseconds."""


@dataclass(frozen=True, slots=True)
class CopyRecord:
    """The state of a working folder when it was last equal to its copy."""

    uri: str
    """Identity of the copy's URI."""
    writer: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Id of this working folder: a copy that it wrote is never newer than itself."""
    known: tuple[str, int] | None = None
    """Identity of the copy to which it was last equal."""
    files: Mapping[str, Stamp] = field(default_factory=dict)
    """Stamps of its files at that time."""

    @classmethod
    def of(cls, folder: Path, uri: str) -> CopyRecord | None:
        """A folder's record; None if it was never copied. Of a record for another URI only the writer is kept."""
        try:
            record = TypeAdapter(cls).validate_json((folder / FILE).read_bytes())
        except (OSError, ValueError):
            return None
        return record if record.uri == uri else replace(record, uri=uri, known=None, files={})

    def write(self, folder: Path) -> None:
        """Replace the folder's record."""
        write_json(folder / FILE, asdict(self))


def stamps(folder: Path) -> dict[str, Stamp]:
    """Stamps of every file that is copied, by its path with slashes; empty for a missing folder."""
    result = {}
    for place, folders, files in os.walk(folder):  # os.walk skips folders that vanish meanwhile, as checkpoints do
        folders[:] = sorted(name for name in folders if not name.startswith(UNFINISHED))
        for name in sorted(files):
            file = Path(place, name)
            path = file.relative_to(folder)
            with suppress(FileNotFoundError):
                stat = file.stat()
                if _is_copied(path):
                    result[path.as_posix()] = (stat.st_size, stat.st_mtime_ns)
    return result


def _is_copied(path: Path) -> bool:
    """Excludes unfinished files, locks, Ray's state, and paths that could not be fetched again."""
    return not (
        path.as_posix() == FILE
        or why_not_inside(path.as_posix()) is not None
        or path.match(LOCKS)
        or path.is_relative_to(RAY_STATE)
        or any(part.startswith(UNFINISHED) for part in path.parts)
    )

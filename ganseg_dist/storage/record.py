"""What a working folder knows of its kept copy: NAME/.kept.json, which is not copied itself."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from ganseg_dist.atomic import UNFINISHED, write_json
from ganseg_dist.files import read_json
from ganseg_dist.paths import why_not_inside

FILE = ".kept.json"
LOCKS = "*.lock"
RAYS_OWN = "checkpoints/ray"
"""Notes of the Ray cluster that trained last, which another one does not need."""

Stamp = tuple[int, int]
"""A file's size and when it was changed, in nanoseconds."""


@dataclass(frozen=True, slots=True)
class Record:
    """How far a working folder was copied."""

    address: str
    """Its identity."""
    writer: str = field(default_factory=lambda: uuid.uuid4().hex)
    """This working folder's own name: a copy that it wrote is never newer than itself."""
    known: tuple[str, int] | None = None
    """Identity of the copy that it was equal to last."""
    files: Mapping[str, Stamp] = field(default_factory=dict)
    """As they were then."""

    @classmethod
    def of(cls, folder: Path, address: str) -> Record | None:
        """None where the folder was never copied. Of a copy somewhere else, only who wrote it counts."""
        try:
            said = read_json(folder / FILE)
            known = None if said["known"] is None else (said["known"][0], said["known"][1])
            files = {path: (stamp[0], stamp[1]) for path, stamp in said["files"].items()}
            record = cls(said["address"], said["writer"], known, files)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return record if record.address == address else replace(record, address=address, known=None, files={})

    def write(self, folder: Path) -> None:
        """Replace the folder's record."""
        write_json(folder / FILE, asdict(self))


def stamps(folder: Path) -> dict[str, Stamp]:
    """Every file that is copied, by its path in the folder, with slashes; none where there is no folder."""
    found = {}
    for place, folders, files in os.walk(folder):  # which goes past what vanishes meanwhile, as checkpoints do
        folders[:] = sorted(name for name in folders if not name.startswith(UNFINISHED))
        for name in sorted(files):
            file = Path(place, name)
            path = file.relative_to(folder)
            with suppress(FileNotFoundError):
                told = file.stat()
                if _is_copied(path):
                    found[path.as_posix()] = (told.st_size, told.st_mtime_ns)
    return found


def _is_copied(path: Path) -> bool:
    """Not what is being written, nor locks, nor what Ray notes for itself, nor what could not be fetched."""
    return not (
        path.as_posix() == FILE
        or why_not_inside(path.as_posix()) is not None
        or path.match(LOCKS)
        or path.is_relative_to(RAYS_OWN)
        or any(part.startswith(UNFINISHED) for part in path.parts)
    )

"""The format of a run's remote copy: one small object lists its files, and unlisted files do not count.

URI/NAME/contents.json     its writer, its revision, and each file's size, digest and revision
URI/NAME/000017/...        the files that changed with revision 17, under their names

A revision never overwrites files of an earlier one. contents.json is replaced atomically once all files of a revision
are uploaded, and only then are unlisted files deleted: an interrupted copy changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated

from pydantic import Field, TypeAdapter

from ganseg_dist.errors import RunError
from ganseg_dist.files import parse_json, why_not_inside
from ganseg_dist.storage.remote import RemoteFolder

FORMAT = 1
LIST = "contents.json"
Natural = Annotated[int, Field(ge=0, lt=2**63)]


@dataclass(frozen=True, slots=True)
class Entry:
    """Record of one file."""

    size: Natural
    mtime_ns: Natural
    digest: str
    """SHA-256."""
    revision: Natural
    """The revision with which it was sent."""


@dataclass(frozen=True, slots=True)
class Contents:
    """One revision of a folder's copy."""

    writer: str
    """Id of the working folder that it copies."""
    revision: Natural
    files: Mapping[str, Entry]
    """By path in the folder, with slashes."""

    @property
    def identity(self) -> tuple[str, int]:
        """Two copies with the same identity are equal."""
        return self.writer, self.revision

    @classmethod
    def at(cls, remote: RemoteFolder, name: str) -> Contents | None:
        """Read the contents of the folder with this name; None if it has no copy.

        A list that is replaced while it is read may be cut at the length of the earlier one: an unreadable list is read
        again until two readings are equal.

        Raises RunError when it is damaged, and for a path that leads out of the folder.
        """
        content, before = remote.read(f"{name}/{LIST}"), None
        while content is not None:
            try:
                return cls._parsed(content, remote, name)
            except RunError:
                if content == before:
                    raise
            before, content = content, remote.read(f"{name}/{LIST}")
        return None

    @classmethod
    def _parsed(cls, content: bytes, remote: RemoteFolder, name: str) -> Contents:
        listed, remedy = f"{remote.display_uri}/{name}/{LIST}", f"restore it, or delete {name} there"
        try:
            stated = parse_json(content)["format"]
            if stated != FORMAT:
                raise RunError(f"{listed}: format {stated}; this version reads {FORMAT}")
            contents = TypeAdapter(cls).validate_json(content, strict=True)
        except (ValueError, KeyError, TypeError):
            raise RunError(f"{listed}: is damaged; {remedy}") from None
        for path in contents.files:
            problem = why_not_inside(path)
            if problem is not None:
                raise RunError(f"{listed}: path {path!r} {problem}; {remedy}")
        return contents

    def put(self, remote: RemoteFolder, name: str) -> None:
        """Replace the list of the folder with this name."""
        record = {"format": FORMAT, **asdict(self)}
        remote.replace(f"{name}/{LIST}", json.dumps(record, indent=1).encode())

    def place(self, name: str, path: str) -> str:
        """Path of a listed file below the URI."""
        return place(name, self.files[path].revision, path)


def place(name: str, revision: int, path: str) -> str:
    """Path below the URI of a file that was sent with this revision."""
    return f"{name}/{revision:06d}/{path}"

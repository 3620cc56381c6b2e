"""What a kept run consists of: one small object lists its files, and whatever it does not list is not there.

URI/NAME/contents.json     who wrote it, its revision, and each file's size, digest and revision
URI/NAME/000017/...        the files that changed with revision 17, under their own names

A revision never touches the files of one before. contents.json is replaced in one step when all of a revision's files
are there, and only then is what it no longer lists deleted: a copy that was cut off changed nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated

from pydantic import Field, TypeAdapter

from ganseg_dist.errors import RunError
from ganseg_dist.files import parse_json
from ganseg_dist.paths import why_not_inside
from ganseg_dist.storage.uri import Address

FORMAT = 1
LIST = "contents.json"
Natural = Annotated[int, Field(ge=0, lt=2**63)]


@dataclass(frozen=True, slots=True)
class Entry:
    """One file."""

    size: Natural
    mtime_ns: Natural
    digest: str
    """SHA-256."""
    revision: Natural
    """With which it was sent."""


@dataclass(frozen=True, slots=True)
class Contents:
    """One revision of a kept folder."""

    writer: str
    """Of the working folder that it is the copy of."""
    revision: Natural
    files: Mapping[str, Entry]
    """By path in the folder."""

    @property
    def identity(self) -> tuple[str, int]:
        """Two copies of one identity are the same."""
        return self.writer, self.revision

    @classmethod
    def at(cls, address: Address, name: str) -> Contents | None:
        """Of the folder that is kept under this name; none where there is none.

        A list that is replaced while it is read may come in the length of the one before: it is read again until two
        readings are the same.

        Raises RunError when it cannot be understood, and for a path that leads out of the folder.
        """
        content, before = address.read(f"{name}/{LIST}"), None
        while content is not None:
            try:
                return cls._parsed(content, address, name)
            except RunError:
                if content == before:
                    raise
            before, content = content, address.read(f"{name}/{LIST}")
        return None

    @classmethod
    def _parsed(cls, content: bytes, address: Address, name: str) -> Contents:
        listed, remedy = f"{address.shown}/{name}/{LIST}", f"restore it, or delete {name} there"
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

    def put(self, address: Address, name: str) -> None:
        """From now on, what is kept under this name."""
        said = {"format": FORMAT, **asdict(self)}
        address.replace(f"{name}/{LIST}", json.dumps(said, indent=1).encode())

    def place(self, name: str, path: str) -> str:
        """Where a file lies."""
        return place(name, self.files[path].revision, path)


def place(name: str, revision: int, path: str) -> str:
    """Where a file lies that was sent with this revision."""
    return f"{name}/{revision:06d}/{path}"

"""Digests: a file, or a JSON record that carries its own, is what was written, or it is `Damaged`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ganseg_dist.files import read_json, sha256
from ganseg_dist.paths import why_not_inside

DIGEST = "digest"
"""The key of a record's own digest."""


class Damaged(Exception):
    """A file is missing, unreadable or not what was written. The message names it; the caller adds what to do."""


def verify_file(file: Path, digest: str | None) -> None:
    """Raises Damaged when the file's digest is another one."""
    try:
        found = sha256(file)
    except OSError as error:
        raise _unreadable(file, error) from None
    if found != digest:
        raise Damaged(f"{file}: is damaged (its digest differs)")


def verify_listed(record: Path, digests: Mapping[str, str], verify: Callable[[Path, str], None] = verify_file) -> None:
    """Raises Damaged for the first of a record's files that is not as it lists it, or that lies elsewhere."""
    for name, digest in digests.items():
        problem = why_not_inside(name)
        if problem is not None:
            raise Damaged(f"{record}: path {name!r} {problem}")
        verify(record.parent / name, digest)


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record for JSON, with its digest."""
    return {**record, DIGEST: _json_digest(record)}


def read_sealed(file: Path) -> dict[str, Any]:
    """The record in a JSON file, less its digest. Raises Damaged when it is not as `sealed` left it."""
    try:
        record = read_json(file, finite=False)  # the digest tells what was written
    except OSError as error:
        raise _unreadable(file, error) from None
    except ValueError:
        raise Damaged(f"{file}: is damaged (it is no JSON)") from None
    if not isinstance(record, dict) or record.pop(DIGEST, None) != _json_digest(record):
        raise Damaged(f"{file}: is damaged (its digest differs)")
    return record


def _json_digest(record: Mapping[str, Any]) -> str:
    """Of the value and not of its text: JSON brings back every number to the bit, and the order of the keys."""
    return hashlib.sha256(json.dumps(record).encode()).hexdigest()


def _unreadable(file: Path, error: OSError) -> Damaged:
    missing = isinstance(error, FileNotFoundError | NotADirectoryError)
    return Damaged(f"{file}: is missing" if missing else f"{file}: cannot be read ({error.strerror or error})")

"""Digests of files, and of JSON records that contain theirs: a mismatch raises `Damaged`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ganseg_dist.errors import GansegError
from ganseg_dist.files import read_json, sha256, why_not_inside

DIGEST = "digest"
"""The key of a record's digest."""


class Damaged(Exception):
    """A file is missing, unreadable or differs from its digest. The message names it; `damage_as` adds a remedy."""


@contextmanager
def damage_as(error: type[GansegError], remedy: str) -> Iterator[None]:
    """Raise damage in the block as an error for the user, with its remedy."""
    try:
        yield
    except Damaged as damage:
        raise error(f"{damage}; {remedy}") from None


def verify_file(file: Path, digest: str | None) -> None:
    """Raises Damaged unless the file has this SHA-256."""
    try:
        actual = sha256(file)
    except OSError as error:
        raise _unreadable(file, error) from None
    if actual != digest:
        raise Damaged(f"{file}: is damaged (its digest differs)")


def verify_listed(record: Path, digests: Mapping[str, str], verify: Callable[[Path, str], None] = verify_file) -> None:
    """Raises Damaged for the first file that differs from the record's digest of it, or lies outside its folder."""
    for name, digest in digests.items():
        problem = why_not_inside(name)
        if problem is not None:
            raise Damaged(f"{record}: path {name!r} {problem}")
        verify(record.parent / name, digest)


def first_damage(record: Path, verify: Callable[[Path, str], None] = verify_file) -> Damaged | None:
    """The first damage to a sealed record or to a file whose digest is among its `digests`; None where all is whole."""
    try:
        verify_listed(record, read_sealed(record).get("digests", {}), verify)
    except Damaged as damage:
        return damage
    return None


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with its digest, for JSON."""
    return {**record, DIGEST: _json_digest(record)}


def read_sealed(file: Path) -> dict[str, Any]:
    """The record in a JSON file, without its digest. Raises Damaged unless it is as `sealed` made it."""
    try:
        record = read_json(file, finite=False)  # the digest verifies the numbers
    except OSError as error:
        raise _unreadable(file, error) from None
    except ValueError:
        raise Damaged(f"{file}: is damaged (it is no JSON)") from None
    if not isinstance(record, dict) or record.pop(DIGEST, None) != _json_digest(record):
        raise Damaged(f"{file}: is damaged (its digest differs)")
    return record


def _json_digest(record: Mapping[str, Any]) -> str:
    """Digest of the value, not of its text: JSON restores every number to the bit, and the order of the keys."""
    return hashlib.sha256(json.dumps(record).encode()).hexdigest()


def _unreadable(file: Path, error: OSError) -> Damaged:
    missing = isinstance(error, FileNotFoundError | NotADirectoryError)
    return Damaged(f"{file}: is missing" if missing else f"{file}: cannot be read ({error.strerror or error})")

"""A server's registry for tests: the nodes of an in-process grid, each with a key of its own."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path

from server.site_registry import FILE, Registry


def fingerprint(of: object) -> str:
    """A well-formed fingerprint of a key that does not exist."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(str(of).encode()).digest()).decode().rstrip("=")


def registry(folder: Path, names: Mapping[int, str]) -> Registry:
    """With these sites' names by node."""
    made = Registry(folder / FILE)
    for node, name in names.items():
        made.add(name, fingerprint(name), node)
    return made

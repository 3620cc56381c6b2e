"""The versions of a federation's two ends, which they exchange before the first round.

Ends of one protocol understand each other, whatever else differs in their code: a difference is a warning. Ends of two
protocols do not, and the end with the lower number must upgrade.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, StrictInt

from ganseg_dist import __version__
from ganseg_dist.errors import FederationError
from ganseg_dist.records import Record

PROTOCOL = 1
"""Raised by one with each change of a message after which ends from before and after it misunderstand each other."""
PACKAGES = ("ganseg_dist", "clients", "server")
"""The packages whose code takes part in a federation."""
PROTOCOL_CODES = range(2000, 3000)
"""Error codes of sites that reject a message of another protocol: 2000 and the site's own, as its other messages could
not be read."""

Protocol = Annotated[StrictInt, Field(ge=PROTOCOL, le=PROTOCOL)]
"""Of a message: `check_protocol` has named any other."""
Version = Annotated[str, Field(pattern=r"^[0-9A-Za-z.+!-]{0,40}$")]
"""A release of this package; empty where it is not known."""
CodeDigest = Annotated[str, Field(pattern=r"^(?:[0-9a-f]{64})?$")]
"""The `code_digest` of an end; empty where it is not known."""


class OtherProtocolError(FederationError):
    """A message of another protocol, which cannot be understood."""


class Versions(Record):
    """What an end runs."""

    protocol: int
    version: Version = ""
    code: CodeDigest = ""

    @property
    def text(self) -> str:
        """For people, with the digest's first digits."""
        return f"ganseg-dist {self.version or 'of unknown version'}, code {self.code[:12] or 'unknown'}"


@cache
def code_digest() -> str:
    """SHA-256, in hexadecimal, over the path and content of all Python files of PACKAGES as they are installed."""
    digest = hashlib.sha256()
    for package in PACKAGES:
        folder = _folder(package)
        for file in sorted(folder.rglob("*.py"), key=lambda file: file.relative_to(folder).as_posix()):
            content = file.read_bytes()
            digest.update(f"{package}/{file.relative_to(folder).as_posix()}\0{len(content)}\0".encode())
            digest.update(content)
    return digest.hexdigest()


@cache
def installed() -> Versions:
    """What this end runs."""
    return Versions(protocol=PROTOCOL, version=__version__, code=code_digest())


def difference(other: Versions, name: str) -> str | None:
    """A warning where the end of this name runs other code than this one; None if it runs the same."""
    here = installed()
    if not other.code or other.code == here.code:
        return None
    return f"{name} runs other code ({other.text}; here {here.text}); install one version at both ends"


def check_protocol(fields: Any, sender: str) -> None:
    """Raises OtherProtocolError for a message whose field `protocol` is a whole number other than PROTOCOL.

    It is called before the other fields are validated, which another protocol may have changed.

    Args:
        fields: the message's fields, not validated yet.
        sender: the end that sent them, as the error names it.
    """
    protocol = fields.get("protocol") if isinstance(fields, dict) else None
    if type(protocol) is int and 0 <= protocol < len(PROTOCOL_CODES) and protocol != PROTOCOL:
        raise OtherProtocolError(protocol_difference(protocol, sender))


def protocol_difference(protocol: int, other: str) -> str:
    """The error where the other end, named so, has another protocol: which end must upgrade to what."""
    release = f"ganseg-dist {__version__}"
    older = protocol < PROTOCOL
    remedy = f"upgrade {other} to {release}" if older else f"upgrade ganseg-dist here to the version of {other}"
    order = "older" if older else "newer"
    return f"{other} runs protocol {protocol}, which is {order} than protocol {PROTOCOL} here, of {release}; {remedy}"


def _folder(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise FederationError(f"{package}: is not installed; reinstall ganseg-dist")
    return Path(next(iter(spec.submodule_search_locations)))

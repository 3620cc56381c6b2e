"""sites.json in the server's folder: which node's key speaks for which hospital, and which keys are revoked.

`server.registration` writes it. The server's app reads it whenever a node answers and before every request, so that a
revocation takes effect in a run in progress.
"""

from __future__ import annotations

import datetime
import os
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from filelock import FileLock
from pydantic import AwareDatetime, Field, StrictInt

from ganseg_dist.atomic import write_json
from ganseg_dist.errors import ConfigError, FederationError, RunError
from ganseg_dist.federation.public_key import KeyFingerprint, short_key
from ganseg_dist.files import read_json
from ganseg_dist.names import SiteName
from ganseg_dist.records import Record, validated

VARIABLE = "GANSEG_SITES"
"""Path of the registry, which server.sh sets for the server's app."""
FILE = "sites.json"


class RegisteredSite(Record):
    """A hospital's key. A name has at most one that is not revoked, a key one entry."""

    name: SiteName
    key: KeyFingerprint
    node: Annotated[StrictInt, Field(gt=0, lt=2**64)]
    """Flower's id of the node that has the key."""
    registered: AwareDatetime
    revoked: AwareDatetime | None = None

    @property
    def label(self) -> str:
        """Its name and the short form of its key."""
        return f"{self.name} ({short_key(self.key)})"


@dataclass(frozen=True, slots=True)
class Registry:
    """The registry in a file, which is absent until the first registration."""

    file: Path

    @classmethod
    def from_environment(cls) -> Registry:
        """The registry of the server that started this process.

        Raises FederationError without one: every registered node could then take any name.
        """
        if not os.environ.get(VARIABLE):
            raise FederationError(
                f"{VARIABLE}: names no registry of sites, without which any node could take any name; start the "
                "server with deploy/flower/server.sh"
            )
        return cls(Path(os.environ[VARIABLE]))

    def sites(self) -> tuple[RegisteredSite, ...]:
        """All entries, the oldest first. Raises RunError for a file that cannot be read."""
        try:
            content = read_json(self.file)
        except FileNotFoundError:
            return ()
        except (OSError, ValueError):
            raise RunError(f"{self.file}: cannot be read; restore it from a backup") from None
        return validated(tuple[RegisteredSite, ...], content, self.file)

    def of_node(self, node: int) -> RegisteredSite:
        """The site whose key a node has. Raises FederationError for an unknown node and for a revoked key."""
        site = next((site for site in self.sites() if site.node == node), None)
        if site is None:
            raise FederationError("its key is registered under no name; register it with register.sh")
        if site.revoked is not None:
            raise FederationError(f"the key of {site.label} is revoked")
        return site

    def registered(self, name: str) -> RegisteredSite | None:
        """The site that has this name, or one that people would confuse with it, unless its key is revoked."""
        return next((site for site in self.sites() if site.revoked is None and _alike(site.name, name)), None)

    def check_free(self, name: str, key: str) -> None:
        """Raises ConfigError if another key has the name, or if the key is revoked or has another name."""
        namesake = self.registered(name)
        if namesake is not None and namesake.key != key:
            raise ConfigError(
                f"{name}: is the name of {namesake.label}; give another name, or revoke that key first with "
                f"revoke.sh STATE '{namesake.name}'"
            )
        for site in self.sites():
            if site.key == key and site.revoked is not None:
                raise ConfigError(
                    f"{short_key(key)}: this key of {site.name} was revoked on {site.revoked:%Y-%m-%d}; the hospital "
                    "makes another pair with ganseg certificates"
                )
            if site.key == key and site.name != name:
                raise ConfigError(
                    f"{short_key(key)}: this key is registered as {site.name}; revoke that first with revoke.sh STATE "
                    f"'{site.name}', and register another key"
                )

    def add(self, name: str, key: str, node: int) -> RegisteredSite:
        """Register a key, or give its entry another node id. Raises ConfigError as `check_free` does."""
        with self._locked():
            self.check_free(name, key)
            site = RegisteredSite(name=name, key=key, node=node, registered=_now())
            self._write((*(other for other in self.sites() if other.key != key), site))
        return site

    def revoke(self, name: str) -> RegisteredSite:
        """Revoke the key of this name; of a name without a valid key, return the entry that was revoked last.

        Raises ConfigError for an unknown name.
        """
        with self._locked():
            sites = self.sites()
            found = [site for site in sites if site.name == name]
            if not found:
                known = ", ".join(dict.fromkeys(site.name for site in sites if site.revoked is None)) or "none"
                raise ConfigError(f"{name}: no site has this name; the registered ones are {known}")
            valid = [site for site in found if site.revoked is None]
            if not valid:
                return max(found, key=lambda site: site.revoked or site.registered)
            revoked = valid[0].model_copy(update={"revoked": _now()})
            self._write(revoked if site == valid[0] else site for site in sites)
        return revoked

    def _write(self, sites: Iterable[RegisteredSite]) -> None:
        write_json(self.file, [site.model_dump(mode="json") for site in sites])

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Exclude another registration or revocation between reading and writing."""
        with FileLock(self.file.with_suffix(".lock")):
            yield


def _alike(one: str, other: str) -> bool:
    """Whether two names differ in case, width or spaces only."""
    return _plain(one) == _plain(other)


def _plain(name: str) -> str:
    return "".join(unicodedata.normalize("NFKC", name).casefold().split())


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0)

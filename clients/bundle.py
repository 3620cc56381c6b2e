"""Flower's `flwr-clientapp` for a hospital that runs its own code alone: `python -m clients.bundle`.

A Flower run brings a bundle, and a node carries out the Python files in it: whoever may start a run could then read a
hospital's images, whatever this package promises. Ours brings none. A bundle that does, or that names another app, is
refused before it is unpacked, so that what runs is what this hospital installed.
"""

from __future__ import annotations

import io
import logging
import tomllib
import zipfile
from pathlib import Path
from typing import Any

from flwr.supernode.cli import flwr_clientapp
from flwr.supernode.runtime import run_clientapp

from ganseg_dist import __version__
from ganseg_dist.console import PlainFormatter
from ganseg_dist.errors import FederationError

APP = "clients.app:app"
HARMLESS = {"pyproject.toml", "README.md", ".info/CONTENT"}
"""What a bundle of ours holds. Nothing else may lie where Python looks for modules."""


def check_bundle(bundle: bytes) -> None:
    """Raises FederationError for a bundle with files of its own, of another app or of another version."""
    try:
        with zipfile.ZipFile(io.BytesIO(bundle)) as files:
            unknown = sorted(set(files.namelist()) - HARMLESS)
            project = tomllib.loads(files.read("pyproject.toml").decode())
        app, version = project["tool"]["flwr"]["app"]["components"]["clientapp"], project["project"]["version"]
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError):
        raise FederationError("bundle: cannot be read") from None
    if unknown or app != APP:
        raise FederationError("bundle: brings code of its own, and this site runs what it has installed alone")
    if version != __version__:
        raise FederationError(f"bundle: is of another version than this site's, {__version__}")


def main() -> None:
    """Carry out one task of Flower's node."""
    names = vars(run_clientapp)  # what is private to Flower is touched here and nowhere else
    unpack = names["install_from_fab"]

    def checked(bundle: bytes, **options: Any) -> Path:
        check_bundle(bundle)
        unpacked: Path = unpack(bundle, **options)
        return unpacked

    names["install_from_fab"] = checked
    ours = logging.getLogger("clients")  # what the hospital's own app says, why it refused among it
    handler = logging.StreamHandler()
    handler.setFormatter(PlainFormatter())
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    flwr_clientapp()


if __name__ == "__main__":
    main()

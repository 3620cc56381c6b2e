"""Flower's `flwr-clientapp` for a hospital that runs only its installed code: `python -m clients.bundle`.

A Flower run brings a bundle, and a node executes the Python files in it: whoever may start a run could then read a
hospital's images, despite this package's checks. This project's bundles contain no code. A bundle that does, or that
names another app, is rejected before it is unpacked, so that only code that this hospital installed runs.
"""

from __future__ import annotations

import io
import logging
import tomllib
import zipfile

from ganseg_dist import __version__
from ganseg_dist.compat.flower import run_clientapp
from ganseg_dist.console import PlainFormatter
from ganseg_dist.errors import FederationError

APP = "clients.app:app"
HARMLESS = {"pyproject.toml", "README.md", ".info/CONTENT"}
"""The only files that a bundle may hold: anything else would lie where Python looks for modules."""


def check_bundle(bundle: bytes) -> None:
    """Raises FederationError for a bundle with files beyond HARMLESS, of another app or of another version."""
    try:
        with zipfile.ZipFile(io.BytesIO(bundle)) as files:
            unknown = sorted(set(files.namelist()) - HARMLESS)
            project = tomllib.loads(files.read("pyproject.toml").decode())
        app, version = project["tool"]["flwr"]["app"]["components"]["clientapp"], project["project"]["version"]
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError):
        raise FederationError("bundle: cannot be read") from None
    if unknown or app != APP:
        raise FederationError("bundle: contains code, and this site runs only the code that it has installed")
    if version != __version__:
        raise FederationError(f"bundle: is of another version than this site's, {__version__}")


def main() -> None:
    """Execute one task of Flower's node."""
    logger = logging.getLogger("clients")  # the messages of the hospital's app, such as why it rejected a run
    handler = logging.StreamHandler()
    handler.setFormatter(PlainFormatter())
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    run_clientapp(check_bundle)


if __name__ == "__main__":
    main()

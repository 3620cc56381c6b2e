"""Flower's `flwr-clientapp` for a hospital that runs only its installed code: `python -m clients.bundle`.

A Flower run brings a bundle, and a node executes the Python files in it: whoever may start a run could then read a
hospital's images, despite this package's checks. Here the installed app answers, and nothing of the bundle is unpacked.
A bundle with code, or of another app, is rejected. Its release is not compared: the server's first message has its
protocol and code (`federation.versions`).
"""

from __future__ import annotations

import io
import logging
import os
import tomllib
import zipfile
import zlib
from pathlib import Path

from clients.app import app
from clients.limits import limit_memory
from clients.node import SiteNode
from ganseg_dist.compat.flower import run_clientapp
from ganseg_dist.compat.flower_log import explain_flower_log
from ganseg_dist.console import PlainFormatter
from ganseg_dist.errors import FederationError, GansegError

APP = "clients.app:app"
HARMLESS = {"pyproject.toml", "README.md", ".info/CONTENT"}
"""The only files that a bundle may hold: anything else would lie where Python looks for modules."""
LARGEST_BUNDLE = 2**20
"""Bytes, and of each file in it: this project's has 30 kB."""
FOREIGN = "bundle: contains code, and this site runs only the code that it has installed"
TOO_LARGE = f"bundle: is larger than {LARGEST_BUNDLE // 1024} kB, or a file in it is; ask the operator what was started"


def check_bundle(bundle: bytes) -> None:
    """Raises FederationError for a bundle with files beyond HARMLESS or of another app."""
    try:
        files = _unpacked(bundle)
        project = tomllib.loads(files["pyproject.toml"].decode())
        app = project["tool"]["flwr"]["app"]["components"]["clientapp"]
    except (KeyError, TypeError, ValueError, RecursionError):
        raise FederationError("bundle: cannot be read") from None
    if app != APP:
        raise FederationError(FOREIGN)


def _unpacked(bundle: bytes) -> dict[str, bytes]:
    """The bundle's files by name, unpacked in memory. Raises FederationError, and ValueError for a damaged archive.

    A file is read up to LARGEST_BUNDLE whatever size the archive states, and must have that size.
    """
    if len(bundle) > LARGEST_BUNDLE:
        raise FederationError(TOO_LARGE)
    try:
        with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
            entries = archive.infolist()
            if not HARMLESS.issuperset(entry.filename for entry in entries):
                raise FederationError(FOREIGN)
            if len({entry.filename for entry in entries}) < len(entries):
                raise ValueError("a file is there twice")
            return {entry.filename: _content(archive, entry) for entry in entries}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise ValueError(str(error)) from None


def _content(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """A file's content. Raises FederationError for one that is too large, ValueError for one of another stated size."""
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others unpack without a limit
        raise ValueError("is packed in an unusual way")
    stated, entry.file_size = entry.file_size, LARGEST_BUNDLE + 2  # zipfile stops there, and not where it is stated
    with archive.open(entry) as file:
        content = file.read(LARGEST_BUNDLE + 1)
    entry.file_size = stated
    if max(len(content), stated) > LARGEST_BUNDLE:
        raise FederationError(TOO_LARGE)
    if len(content) != stated:
        raise ValueError("has another size than the archive states")
    return content


def main() -> None:
    """Execute one task of Flower's node."""
    logger = logging.getLogger("clients")  # the messages of the hospital's app, such as why it rejected a run
    handler = logging.StreamHandler()
    handler.setFormatter(PlainFormatter())
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    explain_flower_log(text_of=lambda error: str(error) if isinstance(error, GansegError) else None)
    limit_memory(SiteNode(Path(os.environ["GANSEG_SITE"])).settings.policy.memory_gib)
    run_clientapp(app, check_bundle)


if __name__ == "__main__":
    main()

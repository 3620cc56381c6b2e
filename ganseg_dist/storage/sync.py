"""Keeps a run while it trains: its copy follows it in the background, and training never waits."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ganseg_dist.errors import GansegError
from ganseg_dist.storage.transfer import send
from ganseg_dist.storage.uri import Address, kept_at

LOOK_SECONDS = 1.0

logger = logging.getLogger(__name__)


@contextmanager
def syncing(folder: Path, newest: Callable[[], object]) -> Iterator[None]:
    """Inside, the folder is copied at once and whenever there is something newer; and once more at the end.

    A copy that takes longer than an epoch is followed by one of the newest epoch then. One that fails is said, and
    tried again with the next.

    Args:
        newest: changes with every checkpoint.
    """
    address = kept_at()
    if address is None:
        yield
        return
    ending = threading.Event()
    copying = threading.Thread(
        target=_follow, args=(folder, address, newest, ending), name="ganseg-keeper", daemon=True
    )
    copying.start()
    try:
        yield
    finally:
        ending.set()
        copying.join()
        with _said(folder):
            send(folder, address)


def _follow(folder: Path, address: Address, newest: Callable[[], object], ending: threading.Event) -> None:
    copied: object = folder  # nothing that it could be
    while not ending.is_set():
        with _said(folder):
            found = newest()
            if found != copied:
                copied = found
                send(folder, address)
        ending.wait(LOOK_SECONDS)


@contextmanager
def _said(folder: Path) -> Iterator[None]:
    """What fails inside is a warning, and is tried again with the next checkpoint."""
    try:
        yield
    except (GansegError, OSError) as error:
        logger.warning("%s: is not kept for now: %s", folder.name, error)

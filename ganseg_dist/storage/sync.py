"""Copies a run while it trains: in the background, so that training never waits."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ganseg_dist.errors import GansegError
from ganseg_dist.storage.remote import RemoteFolder, remote_folder
from ganseg_dist.storage.transfer import send

LOOK_SECONDS = 1.0

logger = logging.getLogger(__name__)


@contextmanager
def syncing(folder: Path, newest: Callable[[], object]) -> Iterator[None]:
    """Context in which the folder is copied at the start, at every new checkpoint, and once more at the end.

    A copy that takes longer than an epoch is followed by one of the then newest epoch. A failed one is logged, and
    tried again with the next.

    Args:
        newest: returns a value that changes with every checkpoint.
    """
    remote = remote_folder()
    if remote is None:
        yield
        return
    ending = threading.Event()
    copying = threading.Thread(target=_follow, args=(folder, remote, newest, ending), name="ganseg-sync", daemon=True)
    copying.start()
    try:
        yield
    finally:
        ending.set()
        copying.join()
        with _warn_of_failure(folder):
            send(folder, remote)


def _follow(folder: Path, remote: RemoteFolder, newest: Callable[[], object], ending: threading.Event) -> None:
    copied: object = folder  # differs from every value of newest()
    while not ending.is_set():
        with _warn_of_failure(folder):
            current = newest()
            if current != copied:
                copied = current
                send(folder, remote)
        ending.wait(LOOK_SECONDS)


@contextmanager
def _warn_of_failure(folder: Path) -> Iterator[None]:
    """Turn an error inside into a warning; the copy is tried again with the next checkpoint."""
    try:
        yield
    except (GansegError, OSError) as error:
        logger.warning("%s: is not copied for now: %s", folder.name, error)

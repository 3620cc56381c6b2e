"""Bounds on what a federation may use of a hospital's machine."""

from __future__ import annotations

import os
import resource
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from clients.egress import LONGEST_WAIT_SECONDS, OWNERS_ONLY
from ganseg_dist.errors import PolicyError, RunError
from ganseg_dist.federation.policy import GIB

LONGEST_TIMER = 1e9
"""Seconds that the system's timers can hold: a simulated site has no limit."""


def check_disk(folder: Path, gib: float) -> None:
    """Raises PolicyError where the files in a folder are larger."""
    size = sum(os.lstat(Path(place) / name).st_size for place, _, names in os.walk(folder) for name in names)
    if size > gib * GIB:
        raise PolicyError(
            f"{folder}: holds {size / GIB:.1f} GiB, and the policy permits {gib:g}; delete ended runs, or raise "
            "policy.disk_gib"
        )


def limit_memory(gib: float) -> None:
    """Bound the memory that this process can allocate; beyond it, an allocation fails and the message with it."""
    size = int(gib * GIB)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (size if hard == resource.RLIM_INFINITY else min(size, hard), hard))


@contextmanager
def time_limit(minutes: float) -> Iterator[None]:
    """End what the block does after so many minutes, wherever it is, by a PolicyError.

    Only a process's main thread can be interrupted, in which Flower runs a node's app; elsewhere there is no limit.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: object) -> None:
        raise PolicyError(f"message: takes longer than {minutes:g} minutes, which the policy permits (policy.minutes)")

    began, handler = time.monotonic(), signal.signal(signal.SIGALRM, end)
    before, interval = signal.setitimer(signal.ITIMER_REAL, min(minutes * 60, LONGEST_TIMER))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if before:
            signal.setitimer(signal.ITIMER_REAL, max(before - (time.monotonic() - began), 1e-3), interval)


@contextmanager
def one_process(folder: Path) -> Iterator[None]:
    """Keep other processes from answering for the site in this folder: two would spend its budget twice.

    Raises RunError where another one still does after LONGEST_WAIT_SECONDS, as a second node with the same folder does.
    """
    try:
        with FileLock(folder / "site.lock", timeout=LONGEST_WAIT_SECONDS, mode=OWNERS_ONLY):
            yield
    except Timeout:
        raise RunError(
            f"{folder}: another process answers for this site; end the other node, or wait for its message"
        ) from None

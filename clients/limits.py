"""Bounds on what a federation may use of a hospital's machine."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

from ganseg_dist.engine.tracker import Progress, Tracker
from ganseg_dist.errors import PolicyError
from ganseg_dist.federation.policy import GIB


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


class TimeLimit(Tracker):
    """Ends training that takes longer, at the first step after it."""

    def __init__(self, minutes: float) -> None:
        self.minutes = minutes
        self.end = time.monotonic() + minutes * 60

    def progress(self, progress: Progress) -> None:
        """Raises PolicyError after the end."""
        if time.monotonic() > self.end:
            raise PolicyError(
                f"round: takes longer than {self.minutes:g} minutes, which the policy permits (policy.minutes)"
            )

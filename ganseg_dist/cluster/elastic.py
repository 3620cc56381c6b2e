"""Elastic training: as many workers as the cluster has room for, between a least and a most number.

Ray Train restarts its workers in a smaller number when a node is lost, and in a larger one later. Two rules are added:
only a number that divides the batch is taken, so that every step trains on the same examples however they are shared
out, and workers are added only after a checkpoint, so that no epoch is trained twice.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from ganseg_dist.cluster.ray_cluster import no_room
from ganseg_dist.engine.checkpoint import FolderCheckpoints
from ganseg_dist.errors import RunError

PAUSE_SECONDS = 0.5
"""Between two checks for room."""


def sizes_between(least: int, most: int, batch_size: int) -> tuple[int, ...]:
    """The numbers of workers in [least, most] that divide the batch, ascending."""
    return tuple(size for size in range(least, most + 1) if batch_size % size == 0)


class EpochwiseRules:
    """The `WorkerRules` of a training."""

    def __init__(self, sizes: Sequence[int], checkpoints: Path, patience: float) -> None:
        """Sizes are the numbers of workers that may be taken, ascending; patience is for the least, in seconds."""
        self.sizes, self.patience = tuple(sizes), patience
        self.checkpoints = FolderCheckpoints(checkpoints, writes=False)
        self.newest: Path | None = None
        self.waiting_since: float | None = None

    def workers(self, room: int) -> int:
        """The largest of the sizes for which there is room; 0 if there is none."""
        return max((size for size in self.sizes if size <= room), default=0)

    def on_start(self) -> None:
        """Note the checkpoint with which workers start."""
        self.waiting_since, self.newest = None, self.checkpoints.newest()

    def on_wait(self) -> None:
        """Wait a moment for room. Raises RunError after `patience` seconds of it."""
        now = time.monotonic()
        self.waiting_since = self.waiting_since or now
        if now - self.waiting_since > self.patience:
            raise RunError(no_room(self.sizes[0], self.patience))
        time.sleep(PAUSE_SECONDS)

    def may_resize(self) -> bool:
        """Whether an epoch's checkpoint was written since the last call."""
        before, self.newest = self.newest, self.checkpoints.newest()
        return self.newest != before

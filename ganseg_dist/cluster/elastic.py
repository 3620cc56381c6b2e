"""Training with as many workers as there is room for, between a least and a most.

Ray Train starts its workers again in a smaller number when a node is lost, and in a larger one later. Two rules are
added here: only a number that divides the batch is taken, so that every step learns from the same examples whoever
shares them out, and workers are added only after a checkpoint, so that no epoch is trained twice. Ray has no public
place for such rules: this file alone uses the private one, of the Ray that is pinned.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ray.train.torch import TorchTrainer
from ray.train.v2._internal.execution.scaling_policy import ElasticScalingPolicy, NoopDecision, ScalingDecision

from ganseg_dist.cluster.ray_cluster import no_room
from ganseg_dist.engine.checkpoint import FolderCheckpoints
from ganseg_dist.errors import RunError

PAUSE_SECONDS = 0.5
"""Between two looks for room: Ray's controller takes none of its own."""


def sizes_between(least: int, most: int, batch_size: int) -> tuple[int, ...]:
    """The numbers of workers that share a batch evenly, rising."""
    return tuple(size for size in range(least, most + 1) if batch_size % size == 0)


def unused() -> Mapping[str, float]:
    """What nobody uses of the cluster."""
    import ray

    found: Mapping[str, float] = ray.available_resources()
    return found


def held(group: Any) -> int:
    """The workers that a placement group holds room for, on nodes that live; 0 of one that was given back."""
    from ray.util import placement_group_table

    found = placement_group_table(group)
    return 0 if found["state"] == "REMOVED" else sum(bool(node) for node in found["bundles_to_node_id"].values())


class ElasticTrainer(TorchTrainer):
    """A TorchTrainer for a `ScalingConfig` with a least and a most number of workers."""

    def __init__(self, *arguments: Any, batch_size: int, checkpoints: Path, patience: float, **more: Any) -> None:
        """
        Args:
            batch_size: of all workers together; at least one number of workers must divide it.
            checkpoints: the run's; a new one in it is when workers may be added.
            patience: seconds to wait for room for the least, after which `fit` raises RunError.
        """
        super().__init__(*arguments, **more)
        scaling = self.scaling_config
        sizes = sizes_between(scaling.min_workers, scaling.max_workers, batch_size)
        self.policy = EpochwisePolicy(scaling, sizes, checkpoints, patience)

    def _initialize_and_run_controller(self, **settings: Any) -> Any:
        return super()._initialize_and_run_controller(**{**settings, "scaling_policy": self.policy})


class EpochwisePolicy(ElasticScalingPolicy):
    """What Ray's controller asks before it starts workers, and again and again while they train."""

    def __init__(self, scaling_config: Any, sizes: Sequence[int], checkpoints: Path, patience: float) -> None:
        super().__init__(scaling_config)
        self.sizes, self.patience = tuple(sizes), patience
        self.checkpoints = FolderCheckpoints(checkpoints, writes=False)
        self.newest: Path | None = None
        self.group: Any = None
        """The newest group's place in the cluster: Ray asks for a decision before it gives back what a lost one has."""
        self.waits_since: float | None = None

    def make_decision_for_non_running_worker_group(self) -> ScalingDecision:
        """Start with what there is room for, or wait. Raises RunError when patience is over."""
        decision = super().make_decision_for_non_running_worker_group()
        if isinstance(decision, NoopDecision):
            self._wait()
        else:
            self.waits_since, self.newest = None, self.checkpoints.newest()
        return decision

    def make_decision_for_running_worker_group(
        self, worker_group_state: Any, worker_group_status: Any
    ) -> ScalingDecision:
        """Take in the workers that there is room for, when the epoch's checkpoint has just been written."""
        self.group = worker_group_state.placement_group_handle.placement_group
        newest = self.checkpoints.newest()
        if newest == self.newest:
            self._maybe_send_resource_request()  # or Ray forgets after some minutes what this run asks for
            return NoopDecision()
        self.newest = newest
        return super().make_decision_for_running_worker_group(worker_group_state, worker_group_status)

    def _count_possible_workers(self, reserved_resources: Any) -> int:
        """Ray counts what its nodes have, less what other trainings asked for; it forgets others' tasks and actors."""
        needs = {kind: amount for kind, amount in self.scaling_config._resources_per_worker_not_none.items() if amount}
        free = unused()
        more = min(int(free.get(kind, 0.0) // amount) for kind, amount in needs.items())
        own = 0 if self.group is None else held(self.group)
        room = min(super()._count_possible_workers(reserved_resources), own + more)
        return max((size for size in self.sizes if size <= room), default=0)

    def _wait(self) -> None:
        now = time.monotonic()
        self.waits_since = self.waits_since or now
        if now - self.waits_since > self.patience:
            raise RunError(no_room(self.sizes[0], self.patience))
        time.sleep(PAUSE_SECONDS)

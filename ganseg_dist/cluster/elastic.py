"""Elastic training: as many workers as the cluster has room for, between a least and a most number.

Ray Train restarts its workers in a smaller number when a node is lost, and in a larger one later. This module adds two
rules: only a number that divides the batch is taken, so that every step learns from the same examples however they are
shared out, and workers are added only after a checkpoint, so that no epoch is trained twice. Ray has no public
interface for such rules: this module alone uses the private one, of the pinned Ray version.
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
"""Between two checks for room: Ray's controller itself does not pause."""


def sizes_between(least: int, most: int, batch_size: int) -> tuple[int, ...]:
    """The numbers of workers in [least, most] that divide the batch, ascending."""
    return tuple(size for size in range(least, most + 1) if batch_size % size == 0)


def unused_resources() -> Mapping[str, float]:
    """The unused resources of the cluster."""
    import ray

    resources: Mapping[str, float] = ray.available_resources()
    return resources


def held_workers(group: Any) -> int:
    """The number of workers for which a placement group reserves room on living nodes; 0 for a removed group."""
    from ray.util import placement_group_table

    table = placement_group_table(group)
    return 0 if table["state"] == "REMOVED" else sum(bool(node) for node in table["bundles_to_node_id"].values())


class ElasticTrainer(TorchTrainer):
    """A TorchTrainer for a `ScalingConfig` with a least and a most number of workers."""

    def __init__(self, *arguments: Any, batch_size: int, checkpoints: Path, patience: float, **more: Any) -> None:
        """
        Args:
            batch_size: of all workers together; at least one number of workers must divide it.
            checkpoints: the run's folder of them; workers may be added when a new one appears.
            patience: seconds to wait for room for the least number, after which `fit` raises RunError.
        """
        super().__init__(*arguments, **more)
        scaling = self.scaling_config
        sizes = sizes_between(scaling.min_workers, scaling.max_workers, batch_size)
        self.policy = EpochwisePolicy(scaling, sizes, checkpoints, patience)

    def _initialize_and_run_controller(self, **settings: Any) -> Any:
        return super()._initialize_and_run_controller(**{**settings, "scaling_policy": self.policy})


class EpochwisePolicy(ElasticScalingPolicy):
    """Ray's controller calls it before it starts workers, and repeatedly while they train."""

    def __init__(self, scaling_config: Any, sizes: Sequence[int], checkpoints: Path, patience: float) -> None:
        super().__init__(scaling_config)
        self.sizes, self.patience = tuple(sizes), patience
        self.checkpoints = FolderCheckpoints(checkpoints, writes=False)
        self.newest: Path | None = None
        self.group: Any = None
        """The newest placement group: Ray asks for a decision before it releases the resources of a lost one."""
        self.waiting_since: float | None = None

    def make_decision_for_non_running_worker_group(self) -> ScalingDecision:
        """Start as many workers as there is room for, or wait. Raises RunError after `patience` seconds of waiting."""
        decision = super().make_decision_for_non_running_worker_group()
        if isinstance(decision, NoopDecision):
            self._wait()
        else:
            self.waiting_since, self.newest = None, self.checkpoints.newest()
        return decision

    def make_decision_for_running_worker_group(
        self, worker_group_state: Any, worker_group_status: Any
    ) -> ScalingDecision:
        """Add the workers that there is room for, when the epoch's checkpoint has just been written."""
        self.group = worker_group_state.placement_group_handle.placement_group
        newest = self.checkpoints.newest()
        if newest == self.newest:
            self._maybe_send_resource_request()  # Ray drops this run's request after some minutes otherwise
            return NoopDecision()
        self.newest = newest
        return super().make_decision_for_running_worker_group(worker_group_state, worker_group_status)

    def _count_possible_workers(self, reserved_resources: Any) -> int:
        """Ray counts its nodes' resources less other trainings' requests; this subtracts other tasks and actors too."""
        needs = {kind: amount for kind, amount in self.scaling_config._resources_per_worker_not_none.items() if amount}
        free = unused_resources()
        more = min(int(free.get(kind, 0.0) // amount) for kind, amount in needs.items())
        current = 0 if self.group is None else held_workers(self.group)
        room = min(super()._count_possible_workers(reserved_resources), current + more)
        return max((size for size in self.sizes if size <= room), default=0)

    def _wait(self) -> None:
        now = time.monotonic()
        self.waiting_since = self.waiting_since or now
        if now - self.waiting_since > self.patience:
            raise RunError(no_room(self.sizes[0], self.patience))
        time.sleep(PAUSE_SECONDS)

"""Private parts of Ray, written against Ray 2.60."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import ray
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.execution.scaling_policy import ElasticScalingPolicy, NoopDecision, ScalingDecision

LOW_ON_MEMORY = "node running low on memory"
"""Part of the raylet's message about a worker that it killed; no type of error distinguishes it."""

logger = logging.getLogger(__name__)


class WorkerRules(Protocol):
    """Decides on numbers of workers for an `ElasticTrainer`. Pickled, and called in Ray Train's controller process."""

    def workers(self, room: int) -> int:
        """The number of workers to start, at most `room`; 0: none."""

    def on_start(self) -> None:
        """Called when a group of workers is about to start."""

    def on_wait(self) -> None:
        """Called repeatedly while there is no room. Must pause: the controller does not. An exception ends training."""

    def may_resize(self) -> bool:
        """Called repeatedly while workers train: whether their number may change now."""


class ElasticTrainer(TorchTrainer):
    """A TorchTrainer for a `ScalingConfig` with a minimum and a maximum number of workers, which follows rules.

    Ray takes no scaling policy from outside, so this replaces the one that `fit` hands to the controller.
    """

    def __init__(self, *arguments: Any, rules: WorkerRules, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.policy = ElasticPolicy(self.scaling_config, rules)

    def _initialize_and_run_controller(self, **settings: Any) -> Any:
        return super()._initialize_and_run_controller(**{**settings, "scaling_policy": self.policy})


class ElasticPolicy(ElasticScalingPolicy):
    """Ray's controller calls it before it starts workers, and repeatedly while they train."""

    def __init__(self, scaling_config: Any, rules: WorkerRules) -> None:
        super().__init__(scaling_config)
        self.rules = rules
        self.group: Any = None
        """The newest placement group: Ray requests a decision before it releases the resources of a lost one."""

    def make_decision_for_non_running_worker_group(self) -> ScalingDecision:
        """Start as many workers as the rules allow, or wait."""
        decision = super().make_decision_for_non_running_worker_group()
        if isinstance(decision, NoopDecision):
            self.rules.on_wait()
        else:
            self.rules.on_start()
        return decision

    def make_decision_for_running_worker_group(
        self, worker_group_state: Any, worker_group_status: Any
    ) -> ScalingDecision:
        """Change the number of workers to that of the rules, when they allow it."""
        self.group = worker_group_state.placement_group_handle.placement_group
        if not self.rules.may_resize():
            self._maybe_send_resource_request()  # Ray drops this run's request after some minutes otherwise
            return NoopDecision()
        return super().make_decision_for_running_worker_group(worker_group_state, worker_group_status)

    def _count_possible_workers(self, reserved_resources: Any) -> int:
        """Ray counts its nodes' resources less other trainings' requests; this subtracts other tasks and actors too."""
        needs = {kind: amount for kind, amount in self.scaling_config._resources_per_worker_not_none.items() if amount}
        free = ray.available_resources()
        more = min(int(free.get(kind, 0.0) // amount) for kind, amount in needs.items())
        current = 0 if self.group is None else held_workers(self.group)
        return self.rules.workers(min(super()._count_possible_workers(reserved_resources), current + more))


def held_workers(group: Any) -> int:
    """The number of workers for which a placement group reserves room on living nodes; 0 for a removed group."""
    table = ray.util.placement_group_table(group)
    return 0 if table["state"] == "REMOVED" else sum(bool(node) for node in table["bundles_to_node_id"].values())


def is_startup_timeout(error: object) -> bool:
    """Whether workers found no room in time; Ray's error for it is not public."""
    from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError

    return isinstance(error, WorkerGroupStartupTimeoutError)


def set_tuner_callbacks(tuner: Any, callbacks: Sequence[Any]) -> None:
    """Replace the callbacks of a restored `Tuner`, which Tune neither stores nor takes when it restores one."""
    tuner._local_tuner.get_run_config().callbacks = list(callbacks)


def uploaded_files(folder: Path) -> list[Path]:
    """The files that a job with this working directory uploads, without those that .gitignore and .rayignore name.

    Ray checks the size of an upload only after packing and sending it, and does not name the files.
    """
    from ray._private.ray_constants import RAY_RUNTIME_ENV_IGNORE_GITIGNORE
    from ray._private.runtime_env.packaging import _dir_travel

    paths: list[Path] = []
    with_gitignore = os.environ.get(RAY_RUNTIME_ENV_IGNORE_GITIGNORE) != "1"
    _dir_travel(folder, [], paths.append, include_gitignore=with_gitignore, logger=logger)
    return [path for path in paths if path.is_file()]

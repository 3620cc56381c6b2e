"""Two Ray nodes on this machine with one CPU each; the second can be removed."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import ray
from ray.cluster_utils import Cluster
from ray.util import placement_group_table

SOON = {"health_check_initial_delay_ms": 1000, "health_check_period_ms": 500, "health_check_failure_threshold": 4}
"""A lost node is noticed in seconds."""


@dataclass
class TwoNodes:
    """A head and a removable second node."""

    cluster: Cluster

    @property
    def address(self) -> str:
        return self.cluster.address

    def remove_second_node(self) -> None:
        """Kill its raylet and all child processes at once."""
        (node,) = self.cluster.worker_nodes
        own = [psutil.Process(info.process.pid) for infos in node.all_processes.values() for info in infos]
        for process in [*own, *(child for parent in own for child in parent.children(recursive=True))]:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        self.cluster.remove_node(node, allow_graceful=False)

    def add_second_node(self) -> None:
        self.cluster.add_node(num_cpus=1)

    def nodes_of_workers(self) -> list[list[str]]:
        """The node of every rank, for each placed group of Ray Train workers."""
        with driver(self.address):
            groups = [group for group in placement_group_table().values() if group["state"] == "CREATED"]
        return [list(group["bundles_to_node_id"].values()) for group in groups]


@contextmanager
def driver(address: str) -> Iterator[None]:
    ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def two_nodes() -> Iterator[TwoNodes]:
    Path("/tmp/ray").mkdir(exist_ok=True)  # Ray notes the address there too, and makes it only where its folder is
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # short: sockets of Ray's lie in it, whose paths are limited
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "temp_dir": folder, "_system_config": SOON})
    try:
        cluster.add_node(num_cpus=1)
        yield TwoNodes(cluster)
    finally:
        cluster.shutdown()
        shutil.rmtree(folder, ignore_errors=True)

"""A Ray head node for one test, isolated from other Ray processes of this machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
from ray.util import get_node_ip_address

from tests.deploy.processes import free_port

BIN = Path(sys.executable).parent
OURS = ("GANSEG_", "MLFLOW_", "RAY_")


AUTOSCALING = {
    "RAY_FAKE_CLUSTER": "1",
    "RAY_OVERRIDE_NODE_ID_FOR_TESTING": "f" * 51 + "0" * 5,
    "AUTOSCALER_UPDATE_INTERVAL_S": "1",
}
"""Settings of the head for Ray's fake provider, which finds the head by its node id."""


def autoscaling_config(address: str) -> dict[str, Any]:
    """For Ray's own autoscaler, as `deploy/ray/cluster.yaml`: nodes are processes of this machine that join the head.

    Args:
        address: the head's.
    """
    return {
        "cluster_name": "grows",
        "max_workers": 2,
        "idle_timeout_minutes": 0.2,
        "provider": {
            "type": "fake_multinode",
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "gcs_address": address,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "worker": {"resources": {"CPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 2},
        },
        "head_node_type": "ray.head.default",
        "auth": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        "worker_setup_commands": [],
        "worker_start_ray_commands": [],
    }


def stock_environment() -> dict[str, str]:
    """Environment without ganseg, MLflow and Ray settings."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    return plain | {"PATH": f"{BIN}:{os.environ['PATH']}", "RAY_AUTH_MODE": "disabled"}


@contextmanager
def ray_head(*, grows: bool = False) -> Iterator[str]:
    """The address of its dashboard; two CPUs, or none and an autoscaler that adds two nodes of one."""
    folder = Path(
        tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    )  # short: Ray's sockets lie in it, whose paths are limited
    try:
        process, address = _start_head(folder, grows=grows)
        try:
            yield address
        finally:
            own = psutil.Process(process.pid).children(recursive=True)
            process.terminate()
            process.wait(timeout=60)
            for left in own:  # nodes that the autoscaler added do not notice at once
                with suppress(psutil.NoSuchProcess):
                    left.kill()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _start_head(folder: Path, *, grows: bool, attempts: int = 3) -> tuple[subprocess.Popen[bytes], str]:
    """A head that takes jobs. Ray gives its own processes 30 s to start, which a busy machine may not keep."""
    gcs, port, log = free_port(), free_port(), folder / "head.log"
    command = [
        str(BIN / "ray"), "start", "--head", "--block", f"--port={gcs}", f"--dashboard-port={port}",
        f"--dashboard-agent-listen-port={free_port()}", f"--num-cpus={0 if grows else 2}", f"--temp-dir={folder}",
        "--disable-usage-stats",
    ]  # fmt: skip
    environment = stock_environment()
    if grows:
        config = folder / "autoscaling.json"
        config.write_text(json.dumps(autoscaling_config(f"{get_node_ip_address()}:{gcs}")))
        command.append(f"--autoscaling-config={config}")
        environment |= AUTOSCALING
    with log.open("w") as written:
        process = subprocess.Popen(command, env=environment, stdout=written, stderr=subprocess.STDOUT)
    while "Ray runtime started" not in log.read_text():
        if process.poll() is not None:
            assert attempts > 1, log.read_text()
            return _start_head(folder, grows=grows, attempts=attempts - 1)
        time.sleep(0.5)
    return process, f"http://127.0.0.1:{port}"

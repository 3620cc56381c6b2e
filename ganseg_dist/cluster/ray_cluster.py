"""Joins a Ray cluster or starts one on this machine, and maps pure functions over it."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ganseg_dist.errors import RunError, one_line

AUTOSCALES = "GANSEG_AUTOSCALES"
"""Set where the cluster has an autoscaler."""
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "DO_NOT_TRACK": "true",
}


logger = logging.getLogger(__name__)


@contextmanager
def ray_cluster(*, dashboard: bool = False) -> Iterator[None]:
    """The cluster that RAY_ADDRESS names, or one started on this machine and stopped again.

    Args:
        dashboard: of a cluster on this machine; without it Ray Tune never releases a stopped trial's resources.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if "RAY_ADDRESS" not in os.environ:
        # A local cluster would write an authentication token to the home folder and make later clusters require it.
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    import ray

    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS", "local")
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR,
                 include_dashboard=dashboard if address == "local" else None)  # fmt: skip
    except ConnectionError as error:
        raise RunError(f"RAY_ADDRESS={address}: no Ray cluster answers there ({one_line(error)})") from None
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_sigterm)  # Ray's handler aborts the process
    try:
        yield
    finally:
        ray.shutdown()


def map_on_cluster(function: Callable[[Any], Any], items: list[Any]) -> Iterator[tuple[int, Any]]:
    """`function` over items as Ray tasks, one core each; yields (index, result) as they finish."""
    import ray

    task = ray.remote(num_cpus=1)(function)
    waiting = {task.remote(item): index for index, item in enumerate(items)}
    while waiting:
        done, _ = ray.wait(list(waiting), num_returns=1)
        for reference in done:
            yield waiting.pop(reference), ray.get(reference)


def cluster_resources() -> Mapping[str, float]:
    """The cluster's total resources: `CPU`, and `GPU` if there are any."""
    import ray

    resources: Mapping[str, float] = ray.cluster_resources()
    return resources


def check_resources(*, workers: int, threads: int, gpus: bool) -> None:
    """Raises RunError when the cluster can never hold these workers: Ray itself would wait for ever.

    If GANSEG_AUTOSCALES states that the cluster adds nodes on request, what is missing is logged and waited for.
    """
    total = cluster_resources()
    needed = {"CPU": workers * threads, **({"GPU": workers} if gpus else {})}
    for kind, amount in needed.items():
        available = total.get(kind, 0)
        if available >= amount:
            continue
        if autoscales():
            logger.warning(
                "--workers %d: needs %d %s(s) and the cluster has %g; waiting for it to add nodes",
                workers, amount, kind, available,
            )  # fmt: skip
            return
        remedy = "leave out --gpus, or add GPU nodes" if kind == "GPU" else "lower train.threads, or add nodes"
        hint = f"; where nodes are added on request, set {AUTOSCALES}=1" if "RAY_ADDRESS" in os.environ else ""
        raise RunError(
            f"--workers {workers}: needs {amount} {kind}(s) and the cluster has {available:g}; request fewer workers, "
            f"{remedy}{hint}"
        )


def autoscales() -> bool:
    """Whether the cluster adds nodes on request, by AUTOSCALES: Ray does not report it."""
    return os.environ.get(AUTOSCALES, "0") not in ("", "0")


def no_room(workers: int, seconds: float) -> str:
    """Error message for workers that lost their nodes and found no others for so many seconds."""
    return (
        f"--workers: the cluster had no room for {workers} worker(s) for {seconds / 60:.0f} minutes; wait for what "
        "uses it, bring lost nodes back, or request fewer workers: the same command resumes from the last checkpoint"
    )

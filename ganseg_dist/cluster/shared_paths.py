"""Checks, before training, that every node that may host a worker sees the paths that training reads and writes.

A node that sees another folder, or none, fails late or, worse, continues alone: an empty mount point is a folder too.
"""

from __future__ import annotations

import os
import shutil
import ssl
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

from ganseg_dist.atomic import UNFINISHED, whole_folder
from ganseg_dist.cluster.ray_cluster import ray_cluster
from ganseg_dist.errors import GansegError, RunError, one_line
from ganseg_dist.planning.prepare import Prepared
from ganseg_dist.runs import Run, runs_root, store_root
from ganseg_dist.tracking.connection import reason, without_password

ANSWER_SECONDS = 120.0
"""For a node's answer: one with a hanging mount never answers, one that starts its first Python process takes some
seconds."""
SERVER_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class SharedPath:
    """A folder or file that every node must see as the driver does."""

    setting: str
    """The variable or option that sets it, such as GANSEG_STORE."""
    path: Path
    holds: tuple[str, ...] = ()
    """Some entries that the driver sees in it: a folder without them is another one of the same path."""
    written: bool = False
    """Whether workers write to it."""

    def problem(self) -> str | None:
        """The problem of this path on this node, to follow the node's name in a message; None if there is none."""
        remedy = f"put it on storage that all nodes share ({self.setting})"
        try:
            if not self.path.exists():
                return f"does not see {self.setting} {self.path}; {remedy}"
            for name in self.holds:
                if not (self.path / name).exists():
                    return f"sees another {self.setting} {self.path}, without the driver's {name}; {remedy}"
        except OSError as error:
            return f"cannot look into {self.setting} {self.path} ({error.strerror or error}); fix its mount there"
        return self._write_problem() if self.written else None

    def _write_problem(self) -> str | None:
        """Why no folder can be created and renamed in it, as writing a checkpoint does; None if it can."""
        probe = self.path / f"{UNFINISHED}probe-{uuid.uuid4().hex}"
        try:
            with whole_folder(probe) as folder:
                (folder / "empty").touch()
        except GansegError:
            return f"cannot write in {self.setting} {self.path}; let the user that Ray runs as there write in it"
        shutil.rmtree(probe, ignore_errors=True)
        return None


@dataclass(frozen=True, slots=True)
class NodeCheck:
    """The first problem with a path on one node, and why the tracking server cannot be reached from there."""

    problem: str | None
    connection_problem: str | None


def check_node(places: Sequence[SharedPath], server: str | None) -> NodeCheck:
    """Check paths and the tracking server from this node; runs on each node."""
    problem = next((problem for place in places if (problem := place.problem()) is not None), None)
    return NodeCheck(problem, None if server is None else connection_problem(server))


def connection_problem(server: str) -> str | None:
    """Why no server answers at this address; None if one does, even with an HTTP error.

    No secret is sent, so the server's certificate is not verified.
    """
    unverified = ssl.create_default_context()
    unverified.check_hostname = False
    unverified.verify_mode = ssl.CERT_NONE
    try:
        with urlopen(without_password(server), timeout=SERVER_SECONDS, context=unverified):
            return None
    except HTTPError:
        return None
    except (OSError, HTTPException, ValueError) as error:  # includes malformed addresses and servers without HTTP
        return reason(error)


def data_paths(folders: Iterable[Path | None]) -> list[SharedPath]:
    """The paths that preparing slices reads and writes. A cohort's folder is recognised by one of its entries."""
    cohorts = [folder.absolute() for folder in folders if folder is not None and folder.exists()]
    entries = [next(folder.iterdir(), None) if folder.is_dir() else None for folder in cohorts]
    read = [
        SharedPath("--data", folder, () if entry is None else (entry.name,))
        for folder, entry in zip(cohorts, entries, strict=True)
    ]
    return [
        *read,
        SharedPath("GANSEG_RUNS", runs_root(), written=True),
        SharedPath("GANSEG_STORE", store_root(), written=True),
    ]


def training_paths(run: Run, prepared: Prepared) -> list[SharedPath]:
    """The paths that a worker reads and writes: the run's folder, and each prepared case in its store."""
    cases: dict[Path, list[str]] = defaultdict(list)
    for part in (*prepared.cohort.values(), *(prepared.healthy or {}).values()):
        for folder in map(Path, part):
            store = folder.parents[1]
            cases[store].append(str(folder.relative_to(store)))
    stores = [SharedPath("GANSEG_STORE", store, tuple(names)) for store, names in cases.items()]
    return [SharedPath("GANSEG_RUNS", run.folder, written=True), *stores]


def check_shared_paths(
    places: Sequence[SharedPath], needs: Mapping[str, float], warn: Callable[[str], None] = lambda warning: None
) -> None:
    """Check these paths on every node that has the resources `needs` (`CPU`, `GPU`).

    The driver's node is left out, so on one machine this costs nothing. A node that is lost meanwhile hosts
    nothing, and is no problem. The error names the first node with a problem and counts the others.

    Args:
        warn: called for each node that cannot reach the server at MLFLOW_TRACKING_URI, which stops no training.

    Raises RunError naming the node, the path, and what to do.
    """
    nodes = _other_nodes(needs)
    if not nodes:
        return
    tracking = os.environ.get("MLFLOW_TRACKING_URI", "")
    server = tracking if tracking.startswith(("http://", "https://")) else None
    with ExitStack() as stack:
        marked = [stack.enter_context(_marked(place)) for place in places]
        results = _check_nodes(nodes, marked, server)
    problems = [f"node {address}: {result.problem}" for address, result in results if result.problem is not None]
    if problems:
        raise RunError(problems[0] + (f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""))
    for address, result in results:
        if result.connection_problem is not None:
            warn(
                f"node {address}: no answer from MLFLOW_TRACKING_URI {without_password(tracking)} there "
                f"({result.connection_problem}); metrics wait if rank 0 runs on it"
            )


def check_worker_paths(places: Sequence[SharedPath]) -> None:
    """Check these paths on this process's node, which may have joined after the driver's check. Raises RunError."""
    import ray

    problem = check_node(places, None).problem
    if problem is not None:
        raise RunError(f"node {ray.util.get_node_ip_address()}: {problem}")


@contextmanager
def cluster_with_shared_paths(*data: Path | None, dashboard: bool = False) -> Iterator[None]:
    """A `ray_cluster` on which every node that may prepare slices sees these cohorts, the store and the runs.

    Raises RunError as `check_shared_paths` does.
    """
    with ray_cluster(dashboard=dashboard):
        check_shared_paths(data_paths(data), {"CPU": 1})
        yield


@contextmanager
def _marked(place: SharedPath) -> Iterator[SharedPath]:
    """While the nodes are checked, put a unique file into a folder to write in, and expect it on every node."""
    if not place.written:
        yield place
        return
    place.path.mkdir(parents=True, exist_ok=True)
    mark = place.path / f"{UNFINISHED}mark-{uuid.uuid4().hex}"
    mark.touch()
    try:
        yield replace(place, holds=(*place.holds, mark.name))
    finally:
        mark.unlink(missing_ok=True)


def _other_nodes(needs: Mapping[str, float]) -> dict[str, str]:
    """By id, the addresses of the living nodes with the resources `needs`, without the driver's."""
    import ray

    own = ray.get_runtime_context().get_node_id()
    return {
        node["NodeID"]: node["NodeManagerAddress"]
        for node in ray.nodes()
        if node["Alive"]
        and node["NodeID"] != own
        and all(node["Resources"].get(kind, 0) >= amount for kind, amount in needs.items())
    }


def _check_nodes(
    nodes: Mapping[str, str], places: Sequence[SharedPath], server: str | None
) -> list[tuple[str, NodeCheck]]:
    """Each node's address and result. Raises RunError for a node that does not answer in ANSWER_SECONDS."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, max_retries=0)(check_node)
    addresses: dict[Any, str] = {}
    for node, address in nodes.items():
        pinned = task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False))
        addresses[pinned.remote(list(places), server)] = address
    answered, silent = ray.wait(list(addresses), num_returns=len(addresses), timeout=ANSWER_SECONDS)
    if silent:
        raise RunError(
            f"node {addresses[silent[0]]}: does not report within {ANSWER_SECONDS:.0f} s whether it sees "
            f"{', '.join(f'{place.setting} {place.path}' for place in places)}; look for a mount that hangs there"
        )
    return [
        (addresses[reference], result) for reference in answered if (result := _result(reference, addresses[reference]))
    ]


def _result(reference: Any, address: str) -> NodeCheck | None:
    """A node's result; None for a lost node."""
    import ray
    from ray.exceptions import NodeDiedError, RayError, TaskUnschedulableError

    try:
        result: NodeCheck = ray.get(reference)
        return result
    except (NodeDiedError, TaskUnschedulableError):
        return None
    except RayError as error:
        why = one_line(error, last=True)
        raise RunError(f"node {address}: cannot run ganseg ({why}); install the same version of it there") from None

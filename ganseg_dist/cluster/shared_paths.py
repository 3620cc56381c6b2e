"""Whether every node that may host a worker sees what training reads and writes, asked before training begins.

A node that sees another folder, or none, fails late or, worse, goes on alone: an empty mount point is a folder too.
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
from urllib.request import Request, urlopen

from ganseg_dist.atomic import UNFINISHED, whole_folder
from ganseg_dist.cluster.ray_cluster import ray_cluster
from ganseg_dist.errors import GansegError, RunError
from ganseg_dist.planning.plan import Prepared
from ganseg_dist.planning.prepare import store_root
from ganseg_dist.runs import Run, runs_root
from ganseg_dist.tracking.connection import reason, without_password

ANSWER_SECONDS = 120.0
"""A node whose mount hangs never answers; one that begins its first Python process takes some seconds."""
SERVER_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Place:
    """A folder, or a file, that every node must see as the driver does."""

    setting: str
    """What a person sets it by, such as GANSEG_STORE."""
    path: Path
    holds: tuple[str, ...] = ()
    """Some of what the driver sees in it: a folder without them is another one of the same name."""
    written: bool = False
    """Whether workers write in it."""

    def problem(self) -> str | None:
        """What is wrong with the place on this node, to be said after the node's name; none where nothing is."""
        mend = f"put it on storage that all nodes share ({self.setting})"
        try:
            if not self.path.exists():
                return f"does not see {self.setting} {self.path}; {mend}"
            for name in self.holds:
                if not (self.path / name).exists():
                    return f"sees another {self.setting} {self.path}, without the driver's {name}; {mend}"
        except OSError as error:
            return f"cannot look into {self.setting} {self.path} ({error.strerror or error}); mend its mount there"
        return self._refusal() if self.written else None

    def _refusal(self) -> str | None:
        """Why a folder cannot be written and renamed in it, which is what writing a checkpoint comes to."""
        probe = self.path / f"{UNFINISHED}probe-{uuid.uuid4().hex}"
        try:
            with whole_folder(probe) as folder:
                (folder / "empty").touch()
        except GansegError:
            return f"cannot write in {self.setting} {self.path}; let the user that Ray runs as there write in it"
        shutil.rmtree(probe, ignore_errors=True)
        return None


@dataclass(frozen=True, slots=True)
class Look:
    """What one node has to say."""

    problem: str | None
    """The first with a place."""
    silence: str | None
    """Why the tracking server does not answer there."""


def look(places: Sequence[Place], server: str | None) -> Look:
    """What each node is asked."""
    problem = next((problem for place in places if (problem := place.problem()) is not None), None)
    return Look(problem, None if server is None else silence(server))


def silence(server: str) -> str | None:
    """Why nothing answers at this address; none when something does, though it were a refusal.

    Nothing secret is sent, so whoever answers need not prove who it is.
    """
    unverified = ssl.create_default_context()
    unverified.check_hostname = False
    unverified.verify_mode = ssl.CERT_NONE
    try:
        with urlopen(Request(without_password(server)), timeout=SERVER_SECONDS, context=unverified):
            return None
    except HTTPError:
        return None
    except (OSError, HTTPException, ValueError) as error:  # also of what is no address, and no server
        return reason(error)


def data_places(folders: Iterable[Path | None]) -> list[Place]:
    """What preparing slices reads and writes. A cohort's folder is known again by one of its entries."""
    cohorts = [folder.absolute() for folder in folders if folder is not None and folder.exists()]
    entries = [next(folder.iterdir(), None) if folder.is_dir() else None for folder in cohorts]
    read = [
        Place("--data", folder, () if entry is None else (entry.name,))
        for folder, entry in zip(cohorts, entries, strict=True)
    ]
    return [*read, Place("GANSEG_RUNS", runs_root(), written=True), Place("GANSEG_STORE", store_root(), written=True)]


def training_places(run: Run, prepared: Prepared) -> list[Place]:
    """What a worker reads and writes: the run's folder, and each prepared case in its store."""
    cases: dict[Path, list[str]] = defaultdict(list)
    for part in (*prepared.cohort.values(), *(prepared.healthy or {}).values()):
        for folder in map(Path, part):
            store = folder.parents[1]
            cases[store].append(str(folder.relative_to(store)))
    stores = [Place("GANSEG_STORE", store, tuple(names)) for store, names in cases.items()]
    return [Place("GANSEG_RUNS", run.folder, written=True), *stores]


def check_shared_paths(
    places: Sequence[Place], needs: Mapping[str, float], warn: Callable[[str], None] = lambda warning: None
) -> None:
    """Every node that may host what needs so much (`CPU`, `GPU`) is asked whether it sees these places.

    The driver's own node is not asked, so on one machine this costs nothing. A node that goes away meanwhile hosts
    nothing, and is no problem. Of several that see badly the first is named, and the others counted.

    Args:
        warn: told of each node where the server at MLFLOW_TRACKING_URI does not answer, which stops no training.

    Raises RunError naming the node, the place, and what to do.
    """
    nodes = _other_nodes(needs)
    if not nodes:
        return
    tracking = os.environ.get("MLFLOW_TRACKING_URI", "")
    server = tracking if tracking.startswith(("http://", "https://")) else None
    with ExitStack() as stack:
        marked = [stack.enter_context(_marked(place)) for place in places]
        looks = _ask(nodes, marked, server)
    problems = [f"node {address}: {seen.problem}" for address, seen in looks if seen.problem is not None]
    if problems:
        raise RunError(problems[0] + (f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""))
    for address, seen in looks:
        if seen.silence is not None:
            warn(
                f"node {address}: no answer from MLFLOW_TRACKING_URI {without_password(tracking)} there "
                f"({seen.silence}); metrics wait if rank 0 runs on it"
            )


def check_worker_paths(places: Sequence[Place]) -> None:
    """The same for this process's node alone, which may have joined after the others were asked. Raises RunError."""
    import ray

    problem = look(places, None).problem
    if problem is not None:
        raise RunError(f"node {ray.util.get_node_ip_address()}: {problem}")


@contextmanager
def cluster_seeing(*data: Path | None, dashboard: bool = False) -> Iterator[None]:
    """A `ray_cluster` on which every node that may prepare slices sees the data and the places for what is made of it.

    Args:
        data: folders of cohorts.
        dashboard: as of `ray_cluster`.

    Raises RunError as `check_shared_paths` does.
    """
    with ray_cluster(dashboard=dashboard):
        check_shared_paths(data_places(data), {"CPU": 1})
        yield


@contextmanager
def _marked(place: Place) -> Iterator[Place]:
    """A place to write in holds, as long as the others are asked, a file that no other folder has."""
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
    """Addresses of the nodes that are large enough, by their ids, less the driver's."""
    import ray

    own = ray.get_runtime_context().get_node_id()
    return {
        node["NodeID"]: node["NodeManagerAddress"]
        for node in ray.nodes()
        if node["Alive"]
        and node["NodeID"] != own
        and all(node["Resources"].get(kind, 0) >= amount for kind, amount in needs.items())
    }


def _ask(nodes: Mapping[str, str], places: Sequence[Place], server: str | None) -> list[tuple[str, Look]]:
    """What each node says, with its address."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, max_retries=0)(look)
    asked: dict[Any, str] = {}
    for node, address in nodes.items():
        pinned = task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False))
        asked[pinned.remote(list(places), server)] = address
    answered, silent = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_SECONDS)
    if silent:
        raise RunError(
            f"node {asked[silent[0]]}: does not say within {ANSWER_SECONDS:.0f} s whether it sees "
            f"{', '.join(f'{place.setting} {place.path}' for place in places)}; look for a mount that hangs there"
        )
    return [(asked[reference], seen) for reference in answered if (seen := _said(reference, asked[reference]))]


def _said(reference: Any, address: str) -> Look | None:
    """A node's answer; none when it went away."""
    import ray
    from ray.exceptions import NodeDiedError, RayError, TaskUnschedulableError

    try:
        seen: Look = ray.get(reference)
        return seen
    except (NodeDiedError, TaskUnschedulableError):
        return None
    except RayError as error:
        why = str(error).strip().splitlines()[-1]
        raise RunError(f"node {address}: cannot run ganseg ({why}); install the same version of it there") from None

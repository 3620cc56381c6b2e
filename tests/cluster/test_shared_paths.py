"""Nodes without the driver's folders are reported in one line before training."""

import http.server
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray

from ganseg_dist.cluster import shared_paths
from ganseg_dist.cluster.ray_cluster import ray_cluster
from ganseg_dist.cluster.shared_paths import (
    SharedPath,
    check_node,
    check_shared_paths,
    connection_problem,
    data_paths,
    training_paths,
)
from ganseg_dist.cluster.train import train_on_ray
from ganseg_dist.engine.tracker import Tracker
from ganseg_dist.errors import RunError
from ganseg_dist.planning.prepare import Prepared
from ganseg_dist.planning.request import TrainingRequest
from ganseg_dist.runs import Run
from ganseg_dist.training.session import train_session
from tests.cluster.ray_head import BIN, stock_environment
from tests.deploy.processes import free_port

BLIND = "127.0.0.2"
"""The address of the node that does not see a folder."""


def test_check_node_accepts_visible_paths_and_leaves_no_file(tmp_path):
    (tmp_path / "cases" / "a").mkdir(parents=True)
    places = [SharedPath("GANSEG_STORE", tmp_path, ("cases/a",)), SharedPath("GANSEG_RUNS", tmp_path, written=True)]
    assert check_node(places, None) == shared_paths.NodeCheck(None, None)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "cases"]


def test_check_node_names_missing_folder_and_its_variable(tmp_path):
    store = tmp_path / "store"
    assert check_node([SharedPath("GANSEG_STORE", store)], None).problem == (
        f"does not see GANSEG_STORE {store}; put it on storage that all nodes share (GANSEG_STORE)"
    )


def test_check_node_detects_other_folder_of_same_name(tmp_path):
    (tmp_path / "cases" / "a").mkdir(parents=True)
    assert check_node([SharedPath("GANSEG_STORE", tmp_path, ("cases/a", "cases/b"))], None).problem == (
        f"sees another GANSEG_STORE {tmp_path}, without the driver's cases/b; "
        "put it on storage that all nodes share (GANSEG_STORE)"
    )


def test_check_node_reports_first_problem(tmp_path):
    places = [
        SharedPath("GANSEG_RUNS", tmp_path),
        SharedPath("--data", tmp_path / "x"),
        SharedPath("GANSEG_STORE", tmp_path / "y"),
    ]
    assert check_node(places, None).problem.startswith(f"does not see --data {tmp_path / 'x'}")


def test_check_node_reports_unwritable_folder():
    assert check_node([SharedPath("GANSEG_RUNS", Path("/proc/self"), written=True)], None).problem == (
        "cannot write in GANSEG_RUNS /proc/self; let the user that Ray runs as there write in it"
    )


class UnauthorizedHandler(http.server.BaseHTTPRequestHandler):
    """Replies 401 to every request."""

    def do_GET(self) -> None:
        self.send_error(401)

    def log_message(self, *words: object) -> None: ...


def test_connection_problem_is_none_for_unauthorized_server():
    with http.server.HTTPServer(("127.0.0.1", 0), UnauthorizedHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert connection_problem(f"http://somebody:secret@127.0.0.1:{server.server_port}/mlflow") is None
        server.shutdown()
    assert connection_problem("http://127.0.0.1:9") == "[Errno 111] Connection refused"


def test_training_paths_are_run_and_prepared_cases(tmp_path):
    store = tmp_path / "store"
    prepared = Prepared(
        {"train": [f"{store}/cases/a", f"{store}/cases/b"], "validation": [f"{store}/cases/c"]},
        {"train": [f"{store}/cases/d"], "validation": []},
    )
    assert training_paths(Run(tmp_path / "runs" / "first"), prepared) == [
        SharedPath("GANSEG_RUNS", tmp_path / "runs" / "first", written=True),
        SharedPath("GANSEG_STORE", store, ("cases/a", "cases/b", "cases/c", "cases/d")),
    ]


def test_data_paths_are_cohorts_runs_and_store(tmp_path, monkeypatch):
    monkeypatch.setenv("GANSEG_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("GANSEG_STORE", str(tmp_path / "store"))
    (tmp_path / "cohort" / "case").mkdir(parents=True)
    (tmp_path / "list.csv").touch()
    assert data_paths([tmp_path / "cohort", tmp_path / "list.csv", None, tmp_path / "gone"]) == [
        SharedPath("--data", tmp_path / "cohort", ("case",)),
        SharedPath("--data", tmp_path / "list.csv"),
        SharedPath("GANSEG_RUNS", tmp_path / "runs", written=True),
        SharedPath("GANSEG_STORE", tmp_path / "store", written=True),
    ]


def test_other_nodes_are_alive_with_enough_resources(monkeypatch):
    def node(name, *, alive=True, **resources):
        return {"NodeID": name, "NodeManagerAddress": f"10.0.0.{name}", "Alive": alive, "Resources": resources}

    listed = [node("1", CPU=8), node("2", CPU=8), node("3", CPU=8, alive=False), node("4"), node("5", CPU=2, GPU=1)]
    monkeypatch.setattr(ray, "nodes", lambda: listed)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "1"))
    assert shared_paths._other_nodes({"CPU": 2}) == {"2": "10.0.0.2", "5": "10.0.0.5"}
    assert shared_paths._other_nodes({"CPU": 2, "GPU": 1}) == {"5": "10.0.0.5"}
    assert shared_paths._other_nodes({"CPU": 9}) == {}


def test_check_shared_paths_returns_at_once_on_single_node(monkeypatch, tmp_path):
    monkeypatch.setattr(ray, "nodes", lambda: [{"NodeID": "1", "Alive": True, "Resources": {"CPU": 2}}])
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "1"))
    started = time.monotonic()
    check_shared_paths([SharedPath("GANSEG_RUNS", tmp_path / "runs", written=True)], {"CPU": 1})
    assert time.monotonic() - started < 0.1
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def node_checks(monkeypatch):
    """Two other nodes, whose results the test sets, and the requests that they receive."""
    results, requests = [], []
    monkeypatch.setattr(shared_paths, "_other_nodes", lambda needs: {"2": "10.0.0.2", "3": "10.0.0.3"})

    def check(nodes, places, server):
        requests.append((places, server))
        return list(zip(nodes.values(), results, strict=True))

    monkeypatch.setattr(shared_paths, "_check_nodes", check)
    return SimpleNamespace(results=results, requests=requests)


def test_check_shared_paths_names_first_failing_node_and_counts_others(node_checks, tmp_path):
    node_checks.results += [shared_paths.NodeCheck("does not see X", None)] * 2
    with pytest.raises(RunError, match=r"^node 10\.0\.0\.2: does not see X \(and 1 more\)$"):
        check_shared_paths([SharedPath("X", tmp_path)], {"CPU": 1})


def test_check_shared_paths_removes_marker_file(node_checks, tmp_path):
    node_checks.results += [shared_paths.NodeCheck(None, None)] * 2
    check_shared_paths([SharedPath("GANSEG_RUNS", tmp_path, written=True)], {"CPU": 1})
    [([place], _)] = node_checks.requests
    assert place.holds[0].startswith(".unfinished-mark-")
    assert list(tmp_path.iterdir()) == []


def test_check_shared_paths_warns_of_unreachable_mlflow(node_checks, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@mlflow:5000")
    node_checks.results += [shared_paths.NodeCheck(None, None), shared_paths.NodeCheck(None, "Connection refused")]
    warnings = []
    check_shared_paths([SharedPath("GANSEG_RUNS", tmp_path)], {"CPU": 1}, warnings.append)
    assert node_checks.requests[0][1] == "http://me:secret@mlflow:5000"
    assert warnings == [
        "node 10.0.0.3: no answer from MLFLOW_TRACKING_URI http://mlflow:5000 there (Connection refused); "
        "metrics wait if rank 0 runs on it"
    ]


def test_check_shared_paths_skips_sqlite_uri(node_checks, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    node_checks.results += [shared_paths.NodeCheck(None, None)] * 2
    check_shared_paths([SharedPath("GANSEG_RUNS", tmp_path)], {"CPU": 1})
    assert node_checks.requests[0][1] is None


@pytest.fixture(scope="module")
def hidden() -> Iterator[Path]:
    """A folder in which the second of two real nodes of a Ray cluster sees an empty one; the driver is on the first."""
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("this user may not make a mount namespace (unshare --mount), and a blind node needs one")
    temporary = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # short: the paths of sockets are limited
    folder = temporary / "hidden"
    folder.mkdir()
    port = free_port()
    start = f"{BIN}/ray start --block --disable-usage-stats --num-cpus=2"
    head = f"{start} --head --port={port} --node-ip-address=127.0.0.1 --include-dashboard=false --temp-dir={temporary}"
    joins = f"mount -t tmpfs none {folder} && exec {start} --address=127.0.0.1:{port} --node-ip-address={BLIND}"
    nodes = [node(head.split()), node(["unshare", "--mount", "bash", "-c", joins])]
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
            patch.setenv("RAY_AUTH_MODE", "disabled")
            wait_until_answering(port)
            with ray_cluster():
                wait_for_nodes(2)
                yield folder
    finally:
        for process in reversed(nodes):
            process.terminate()
            process.wait(timeout=60)
        subprocess.run(["rm", "-rf", str(temporary)], check=False)


def node(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, env=stock_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def wait_until_answering(port: int) -> None:
    import socket

    deadline = time.monotonic() + 60
    while True:
        with socket.socket() as pack_instruction:
            if pack_instruction.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert time.monotonic() < deadline, "the head does not answer"
        time.sleep(0.5)


def wait_for_nodes(count: int) -> None:
    deadline = time.monotonic() + 60
    while sum(node["Alive"] for node in ray.nodes()) < count:
        assert time.monotonic() < deadline, "a node does not come"
        time.sleep(0.5)


@pytest.fixture
def hidden_folder(hidden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs and store that both nodes see, and the folder that only one sees."""
    monkeypatch.setenv("GANSEG_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("GANSEG_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    return hidden


def train_request(config, data: Path) -> TrainingRequest:
    return TrainingRequest(config, data, run_name="first", workers=2)


@pytest.mark.slow
@pytest.mark.parametrize("variable", ["GANSEG_RUNS", "GANSEG_STORE"])
def test_train_session_rejects_folder_invisible_to_node(hidden_folder, phantom, debug_config, monkeypatch, variable):
    blind = hidden_folder / variable.lower()
    monkeypatch.setenv(variable, str(blind))
    with pytest.raises(RunError) as caught:
        train_session(train_request(debug_config, phantom))
    assert str(caught.value) == (
        f"node {BLIND}: does not see {variable} {blind}; put it on storage that all nodes share ({variable})"
    )
    assert not list(Path(os.environ["GANSEG_RUNS"]).glob("first")), "the name is taken"


@pytest.mark.slow
def test_train_session_rejects_empty_data_folder_on_node(hidden_folder, phantom, debug_config):
    for entry in phantom.iterdir():
        (hidden_folder / entry.name).symlink_to(entry)
    with pytest.raises(RunError, match=rf"^node {BLIND}: sees another --data {hidden_folder}, without the driver's "):
        train_session(train_request(debug_config, hidden_folder))


@pytest.mark.slow
def test_train_on_ray_rejects_prepared_cases_invisible_to_node(hidden_folder, prepared, store, debug_config, tmp_path):
    subprocess.run(["cp", "-r", str(store), str(hidden_folder / "store")], check=True)
    parts = {
        part: [folder.replace(str(store), str(hidden_folder / "store")) for folder in folders]
        for part, folders in prepared.cohort.items()
    }
    request = TrainingRequest(debug_config, tmp_path, workers=2)
    with pytest.raises(RunError) as caught:
        train_on_ray(Run(tmp_path / "first"), debug_config, Prepared(parts), request, tracker=Tracker())
    assert str(caught.value) == (
        f"node {BLIND}: does not see GANSEG_STORE {hidden_folder / 'store'}; "
        "put it on storage that all nodes share (GANSEG_STORE)"
    )
    assert list((tmp_path / "first" / "checkpoints").iterdir()) == []


@pytest.mark.slow
def test_check_shared_paths_warns_only_of_mlflow_when_paths_are_visible(hidden_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    warnings = []
    check_shared_paths([SharedPath("GANSEG_RUNS", tmp_path, written=True)], {"CPU": 1}, warnings.append)
    assert warnings == [
        f"node {BLIND}: no answer from MLFLOW_TRACKING_URI http://127.0.0.1:9 there "
        "([Errno 111] Connection refused); metrics wait if rank 0 runs on it"
    ]
    assert list(tmp_path.glob(".unfinished-*")) == []

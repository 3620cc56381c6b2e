"""Training on two nodes, one of which is lost: training resumes on the remaining node or raises an error."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import groupby, pairwise
from pathlib import Path

import pytest

import ganseg_dist.cluster.train as ray_train
from ganseg_dist.config import override
from ganseg_dist.engine.checkpoint import FolderCheckpoints
from ganseg_dist.engine.tracker import Tracker
from ganseg_dist.errors import RunError
from ganseg_dist.planning.request import TrainingRequest
from ganseg_dist.runs import Run, named_run
from ganseg_dist.systems import recipe
from ganseg_dist.training.session import train_session
from tests.cluster.two_nodes import TwoNodes, two_nodes

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(600), pytest.mark.usefixtures("own_runs")]
"""A node counts as lost after two seconds."""

LONG = {"system.gan": False, "system.supervised_epochs": 2000, "train.epochs": 2000}
"""More epochs than any of these tests waits for."""


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    with two_nodes() as nodes:
        monkeypatch.setenv("RAY_ADDRESS", nodes.address)
        yield nodes


def history(run: Run) -> list[dict]:
    newest = FolderCheckpoints(run.checkpoints).newest()
    if newest is None:
        return []
    try:
        return json.loads((newest / "state.json").read_text())["position"]["history"]
    except FileNotFoundError:  # dropped for a newer one in this moment
        return history(run)


def workers(run: Run) -> list[int]:
    """Number of workers in each epoch."""
    return [epoch["workers"] for epoch in history(run)]


def wait_until(happened: Callable[[], bool], process: subprocess.Popen, log: Path, *, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, f"timeout: {log.read_text()[-2000:]}"
        time.sleep(0.2)


def training(data: Path, log: Path, *words: str) -> subprocess.Popen:
    """Stderr goes into a file: an unread pipe is full after some hundred epochs and blocks the process."""
    settings = [f"--set={field}={value}" for field, value in LONG.items()]
    command = [sys.executable, "-m", "ganseg_dist", "train", "ganet_seg_debug", "--data", str(data), *settings, *words]
    with log.open("w") as stream:
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stream)


def test_elastic_training_shrinks_and_grows_with_nodes(phantom, nodes: TwoNodes, tmp_path):
    run, log = named_run("elastic"), tmp_path / "stderr.txt"
    process = training(phantom, log, "--workers=2", "--least-workers=1", "--run-name=elastic")
    try:
        wait_until(lambda: 2 in workers(run), process, log)
        (placed,) = nodes.nodes_of_workers()
        assert len(placed) == len(set(placed)) == 2, "both workers are on one node"
        nodes.remove_second_node()
        wait_until(lambda: 1 in workers(run), process, log)
        nodes.add_second_node()
        wait_until(lambda: workers(run)[-1:] == [2], process, log)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)
    errors = log.read_text()
    assert "training resumes from the last checkpoint" in errors
    assert [size for size, _ in groupby(workers(run))] == [2, 1, 2]
    epochs = history(run)
    assert [epoch["epoch"] for epoch in epochs] == list(range(len(epochs))), "an epoch was left out or trained twice"
    assert {later["step"] - sooner["step"] for sooner, later in pairwise(epochs)} == {epochs[0]["step"]}
    assert process.returncode == 130, errors


class RemovesSecondNode(Tracker):
    """Removes the second node after an epoch whose checkpoint is written; keeps the warnings."""

    def __init__(self, nodes: TwoNodes, run: Run) -> None:
        self.nodes: TwoNodes | None = nodes
        self.run = run
        self.lost_at = 0.0
        self.warnings: list[str] = []

    def epoch(self, step, scores) -> None:
        if self.nodes is not None and history(self.run):
            self.nodes.remove_second_node()
            self.nodes, self.lost_at = None, time.monotonic()

    def warn(self, step, warning) -> None:
        self.warnings.append(warning)


def test_fixed_training_raises_run_error_without_room_and_resumes_with_fewer_workers(
    phantom, nodes: TwoNodes, monkeypatch
):
    monkeypatch.setattr(ray_train, "PATIENCE_SECONDS", 9.0)
    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "3")
    config = override(recipe("ganet_seg_debug"), LONG | {"system.supervised_epochs": 60, "train.epochs": 60})
    run = named_run("fixed")
    shown = RemovesSecondNode(nodes, run)
    with pytest.raises(RunError, match="no room for 2 worker"):
        train_session(TrainingRequest(config, phantom, run_name="fixed", workers=2), tracker=shown)
    assert time.monotonic() - shown.lost_at < 120, "training waited far beyond PATIENCE_SECONDS"
    assert any("resumes from the last checkpoint" in warning for warning in shown.warnings)
    before = workers(run)
    assert 0 < len(before) < 60
    assert run.description().status == "interrupted"
    train_session(TrainingRequest(config, phantom, run_name="fixed", workers=1))
    assert run.finished
    assert [epoch["workers"] for epoch in run.read("history.json")] == before + [1] * (60 - len(before))

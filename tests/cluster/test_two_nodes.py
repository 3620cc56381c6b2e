"""Training on two nodes, one of which is lost: it goes on with what is left, or says that it cannot."""

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

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.usefixtures("own_runs")]

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
    """How many shared each epoch."""
    return [epoch["workers"] for epoch in history(run)]


def wait_until(happened: Callable[[], bool], process: subprocess.Popen, said: Path, *, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert process.poll() is None, said.read_text()
        assert time.monotonic() < deadline, f"it did not happen: {said.read_text()[-2000:]}"
        time.sleep(0.2)


def training(data: Path, said: Path, *words: str) -> subprocess.Popen:
    """What it says goes into a file: a pipe that nobody reads is full after some hundred epochs, and holds it."""
    settings = [f"--set={field}={value}" for field, value in LONG.items()]
    command = [sys.executable, "-m", "ganseg_dist", "train", "ganet_seg_debug", "--data", str(data), *settings, *words]
    with said.open("w") as stream:
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stream)


def test_it_goes_on_with_the_worker_that_is_left_and_takes_in_a_new_one(phantom, nodes: TwoNodes, tmp_path):
    run, said = named_run("elastic"), tmp_path / "said.txt"
    process = training(phantom, said, "--workers=2", "--least-workers=1", "--run-name=elastic")
    try:
        wait_until(lambda: 2 in workers(run), process, said)
        (placed,) = nodes.nodes_of_workers()
        assert len(placed) == len(set(placed)) == 2, "both workers are on one node"
        nodes.lose_the_second()
        wait_until(lambda: 1 in workers(run), process, said)
        nodes.add_a_second()
        wait_until(lambda: workers(run)[-1:] == [2], process, said)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)
    errors = said.read_text()
    assert "training resumes from the last checkpoint" in errors
    assert [size for size, _ in groupby(workers(run))] == [2, 1, 2]
    epochs = history(run)
    assert [epoch["epoch"] for epoch in epochs] == list(range(len(epochs))), "an epoch was left out or trained twice"
    assert {later["step"] - sooner["step"] for sooner, later in pairwise(epochs)} == {epochs[0]["step"]}
    assert process.returncode == 130, errors


class LosesTheSecond(Tracker):
    """Loses the node when an epoch has ended and its checkpoint is written, and keeps what is said."""

    def __init__(self, nodes: TwoNodes, run: Run) -> None:
        self.nodes: TwoNodes | None = nodes
        self.run = run
        self.lost_at = 0.0
        self.warnings: list[str] = []

    def epoch(self, step, scores) -> None:
        if self.nodes is not None and history(self.run):
            self.nodes.lose_the_second()
            self.nodes, self.lost_at = None, time.monotonic()

    def warn(self, step, warning) -> None:
        self.warnings.append(warning)


def test_without_room_it_ends_with_a_word_and_goes_on_with_fewer_workers(phantom, nodes: TwoNodes, monkeypatch):
    monkeypatch.setattr(ray_train, "PATIENCE_SECONDS", 9.0)
    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "3")
    config = override(recipe("ganet_seg_debug"), LONG | {"system.supervised_epochs": 60, "train.epochs": 60})
    run = named_run("fixed")
    shown = LosesTheSecond(nodes, run)
    with pytest.raises(RunError, match="no room for 2 worker"):
        train_session(TrainingRequest(config, phantom, run_name="fixed", workers=2), tracker=shown)
    assert time.monotonic() - shown.lost_at < 120, "it waited long past its patience"
    assert any("resumes from the last checkpoint" in warning for warning in shown.warnings)
    before = workers(run)
    assert 0 < len(before) < 60
    assert run.description().status == "interrupted"
    train_session(TrainingRequest(config, phantom, run_name="fixed", workers=1))
    assert run.finished
    assert [epoch["workers"] for epoch in run.read("history.json")] == before + [1] * (60 - len(before))

"""A cluster scaled to zero: its autoscaler is asked for nodes, and waited for."""

import logging
import subprocess
import sys

import pytest

from ganseg_dist.cluster import ray_cluster as cluster
from ganseg_dist.errors import RunError
from ganseg_dist.runs import Run
from tests.cluster.ray_head import ray_head, stock_environment


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_training_waits_for_the_nodes_that_it_asks_for(phantom, tmp_path):
    with ray_head(grows=True) as address:
        command = [
            sys.executable, "-m", "ganseg_dist", "submit", "--address", address, "--env",
            f"GANSEG_RUNS={tmp_path / 'runs'}", "--env", "GANSEG_AUTOSCALES=1", "--",
            "train", "ganet_seg_debug", "--data", str(phantom), "--workers", "2", "--run-name", "grown",
        ]  # fmt: skip
        done = subprocess.run(command, env=stock_environment(), text=True, capture_output=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    history = Run(tmp_path / "runs" / "grown").read("history.json")
    assert {epoch["workers"] for epoch in history} == {2}


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(cluster, "cluster_resources", lambda: {"CPU": 2.0})
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.delenv("GANSEG_AUTOSCALES", raising=False)


@pytest.mark.usefixtures("small")
def test_what_the_cluster_will_never_have_is_refused():
    with pytest.raises(RunError, match=r"--workers 4: needs 8 CPU.* has 2; ask for fewer.* set GANSEG_AUTOSCALES=1"):
        cluster.check_resources(workers=4, threads=2, gpus=False)
    with pytest.raises(RunError, match=r"needs 1 GPU.* has 0; .*leave out --gpus"):
        cluster.check_resources(workers=1, threads=2, gpus=True)


@pytest.mark.usefixtures("small")
def test_what_an_autoscaler_may_bring_is_waited_for_and_said(monkeypatch, caplog):
    monkeypatch.setenv("GANSEG_AUTOSCALES", "1")
    with caplog.at_level(logging.WARNING):
        cluster.check_resources(workers=2, threads=1, gpus=True)
    assert caplog.messages == ["--workers 2: needs 2 GPU(s) and the cluster has 0; waiting for it to add nodes"]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("said", ["", "0"])
def test_a_switch_that_is_off_is_none(monkeypatch, said):
    monkeypatch.setenv("GANSEG_AUTOSCALES", said)
    with pytest.raises(RunError, match="needs 2 GPU"):
        cluster.check_resources(workers=2, threads=1, gpus=True)

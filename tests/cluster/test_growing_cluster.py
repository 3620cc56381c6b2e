"""A cluster scaled to zero: training requests nodes from its autoscaler and waits for them."""

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
def test_train_waits_for_autoscaled_nodes(phantom, tmp_path):
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
def test_check_resources_rejects_more_than_cluster_has():
    with pytest.raises(RunError, match=r"--workers 4: needs 8 CPU.* has 2; request fewer.* set GANSEG_AUTOSCALES=1"):
        cluster.check_resources(workers=4, threads=2, gpus=False)
    with pytest.raises(RunError, match=r"needs 1 GPU.* has 0; .*leave out --gpus"):
        cluster.check_resources(workers=1, threads=2, gpus=True)


@pytest.mark.usefixtures("small")
def test_check_resources_warns_and_waits_when_autoscaling(monkeypatch, caplog):
    monkeypatch.setenv("GANSEG_AUTOSCALES", "1")
    with caplog.at_level(logging.WARNING):
        cluster.check_resources(workers=2, threads=1, gpus=True)
    assert caplog.messages == ["--workers 2: needs 2 GPU(s) and the cluster has 0; waiting for it to add nodes"]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("message", ["", "0"])
def test_check_resources_treats_empty_and_zero_autoscales_as_off(monkeypatch, message):
    monkeypatch.setenv("GANSEG_AUTOSCALES", message)
    with pytest.raises(RunError, match="needs 2 GPU"):
        cluster.check_resources(workers=2, threads=1, gpus=True)

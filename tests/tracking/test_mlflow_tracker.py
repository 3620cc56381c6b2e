import math
import os
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image

from ganseg_dist.display import PNG_TEXT, Convention
from ganseg_dist.engine.tracker import Progress, Tracker
from ganseg_dist.tracking.mlflow_tracker import MLflowTracker
from ganseg_dist.tracking.tracked_run import TrackedRun, open_tracking


def history(client: MlflowClient, run_id: str, name: str) -> list[tuple[int, float]]:
    return [(metric.step, metric.value) for metric in client.get_metric_history(run_id, name)]


def test_mlflow_tracker_logs_losses_scores_examples_and_system_metrics(run):
    tracked = open_tracking(run)
    tracker = MLflowTracker.of(tracked, Convention.NEUROLOGICAL)
    tracker.progress(Progress("segmentation", 0, 1, 1, 1, {}))
    tracker.steps(7, {"supervised/dice": [0.5, 0.25, 0.125], "discriminator/real": [1.0, math.nan, math.nan]})
    tracker.steps(10, {"generator/total": [float(value) for value in range(2500)]})
    tracker.epoch(10, {"segmentation/wt_dice": 0.75, "segmentation/odd(name)": 1.0, "segmentation/none": math.nan})
    picture = np.zeros((1, 1, 16, 16), np.float32)
    tracker.examples(10, "segmentation", {"image": picture, "regions": picture}, np.ones(len(picture), bool))
    tracker.close()
    client = MlflowClient(tracked.uri)
    assert history(client, tracked.run_id, "supervised/dice") == [(7, 0.5), (8, 0.25), (9, 0.125)]
    assert history(client, tracked.run_id, "discriminator/real") == [(7, 1.0)]
    assert history(client, tracked.run_id, "generator/total") == [(10 + step, float(step)) for step in range(2500)]
    metrics = client.get_run(tracked.run_id).data.metrics
    assert metrics["segmentation/wt_dice"] == 0.75
    assert metrics["segmentation/odd_name_"] == 1.0
    assert "segmentation/none" not in metrics
    assert metrics["system/system_memory_usage_percentage"] > 0
    (file,) = client.list_artifacts(tracked.run_id, "examples/segmentation")
    assert file.path == "examples/segmentation/step-0000010.png"
    with Image.open(client.download_artifacts(tracked.run_id, file.path)) as sheet:
        assert sheet.format == "PNG"
        assert sheet.info[PNG_TEXT] == "neurological: the patient's left is on the left"
    assert list(Path.cwd().iterdir()) == []


def test_mlflow_tracker_does_not_duplicate_repeated_points(run):
    tracked = open_tracking(run)
    tracker = MLflowTracker.of(tracked)
    points = [("supervised/dice", 0.5, 3)]
    for _ in range(2):
        tracker._send_points(points, 1_700_000_000_000)
    tracker.close()
    assert history(MlflowClient(tracked.uri), tracked.run_id, "supervised/dice") == [(3, 0.5)]


def test_mlflow_tracker_of_untracked_run_is_no_op():
    tracker = MLflowTracker.of(TrackedRun("http://127.0.0.1:9"))
    assert type(tracker) is Tracker
    tracker.steps(0, {"a": [1.0]})
    tracker.close()


def test_mlflow_tracker_logs_failed_examples_without_raising(run, caplog):
    tracker = MLflowTracker.of(open_tracking(run))
    tracker.examples(3, "segmentation", {"image": np.zeros((1, 1, 8, 8))}, np.ones(1, bool))
    tracker.close()
    assert "no example pictures at step 3" in caplog.text


class LoopbackServer:
    """A real `mlflow server` on this machine that can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.folder = folder
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1"]
        command += ["--port", str(self.port), "--backend-store-uri", f"sqlite:///{self.folder / 'server.db'}"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self.folder / "server.log").open("a") as log:
            self.process = subprocess.Popen(
                command, env=environment, cwd=self.folder, start_new_session=True, stdout=log, stderr=log
            )
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            with suppress(OSError):
                if urllib.request.urlopen(f"{self.url}/health", timeout=2).status == 200:
                    return
            time.sleep(0.2)
        raise AssertionError((self.folder / "server.log").read_text()[-2000:])

    def kill(self) -> None:
        os.killpg(self.process.pid, 9)
        self.process.wait(timeout=10)


@pytest.fixture
def server(tmp_path):
    server = LoopbackServer(tmp_path)
    server.start()
    yield server
    with suppress(ProcessLookupError):
        server.kill()


@pytest.mark.slow
def test_mlflow_tracker_loses_no_metric_when_server_restarts(run, server, caplog):
    tracked = open_tracking(run, uri=server.url)
    assert tracked.run_id is not None
    tracker = MLflowTracker.of(tracked)
    picture = np.zeros((1, 1, 32, 32), np.float32)
    longest = 0.0
    for epoch in range(30):
        if epoch == 5:
            server.kill()
        if epoch == 20:
            server.start()
        began = time.monotonic()
        tracker.steps(10 * epoch, {"supervised/dice": [float(epoch)] * 10})
        tracker.epoch(10 * epoch + 10, {"segmentation/wt_dice": epoch / 30})
        tracker.examples(
            10 * epoch, "segmentation", {"image": picture, "regions": picture}, np.ones(len(picture), bool)
        )
        longest = max(longest, time.monotonic() - began)
        time.sleep(0.2)
    tracker.close()
    assert longest < 1
    tracked.log_results(run)
    tracked.end("FINISHED")
    client = MlflowClient(server.url)
    assert history(client, tracked.run_id, "supervised/dice") == [(step, float(step // 10)) for step in range(300)]
    assert len(history(client, tracked.run_id, "segmentation/wt_dice")) == 30
    assert len(client.list_artifacts(tracked.run_id, "examples/segmentation")) == 30
    logged = client.get_run(tracked.run_id)
    assert logged.info.status == "FINISHED"
    assert len(logged.outputs.model_outputs) == 1
    (record,) = caplog.records
    assert record.message.startswith(f"MLflow at {server.url} is not answering (")
    assert record.message.endswith("training continues, metrics wait")


@pytest.mark.slow
def test_mlflow_tracker_does_not_block_on_hanging_server(run, caplog):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never answers
        tracked = TrackedRun(f"http://127.0.0.1:{silent.getsockname()[1]}", "abc")
        tracker = MLflowTracker.of(tracked)
        began = time.monotonic()
        for epoch in range(50):
            tracker.steps(10 * epoch, {"supervised/dice": [float(epoch)] * 10})
        assert time.monotonic() - began < 1
        tracker._system.close()
        tracker._outbox.close(seconds=11)
        assert time.monotonic() - began < 20
    messages = [record.message for record in caplog.records]
    assert "is not answering (timed out); training continues, metrics wait" in messages[0]
    assert messages[-1].endswith("metrics could not be sent (timed out)")

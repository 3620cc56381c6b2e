"""Results of a finished run, added to its page in MLflow."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ganseg_dist.runs import Run
from ganseg_dist.tracking.pyfunc import ModelUpload
from ganseg_dist.tracking.tracked_run import TrackedRun

if TYPE_CHECKING:
    from mlflow import MlflowClient


def log_evaluation(run: Run, part: str, scores: Mapping[str, Mapping[str, float]]) -> None:
    """Each score's mean and interval of the run, and the files; says so when MLflow is away."""
    tracked = _tracked(run)
    if tracked.run_id is None:
        return

    def send(client: MlflowClient) -> None:
        from mlflow.entities import Metric

        values = {
            f"{part}/{score}/{end}": interval[end]
            for score, interval in scores.items()
            for end in ("mean", "low", "high")
        }
        client.log_batch(tracked.run_id, metrics=[Metric(name, value, 0, 0) for name, value in values.items()])
        for file in sorted(run.evaluation(part).iterdir()):
            client.log_artifact(tracked.run_id, str(file), f"evaluation/{part}")

    tracked.persist(f"{part} scores", send)


def log_calibration(run: Run) -> None:
    """The model with its new thresholds, in place of the one that training logged."""
    tracked = _tracked(run)
    if tracked.run_id is not None:
        tracked.persist("calibrated model", ModelUpload(tracked.run_id, run.model).send)


def log_report(run: Run, report: Path) -> None:
    """The HTML page as an artifact."""
    tracked = _tracked(run)
    if tracked.run_id is not None:
        tracked.persist("report", lambda client: client.log_artifact(tracked.run_id, str(report)))


def _tracked(run: Run) -> TrackedRun:
    known = run.read("run.json").get("mlflow") or {}
    # The saved URI has no password; the environment's has.
    return TrackedRun(os.environ.get("MLFLOW_TRACKING_URI") or known.get("uri", ""), known.get("run_id"))

"""Adds the results of a finished run to its page in MLflow."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ganseg_dist.metrics.registry import Mode, find_score
from ganseg_dist.metrics.statistics import Interval
from ganseg_dist.run_record import MLflowRecord
from ganseg_dist.runs import Run
from ganseg_dist.tracking.contents import LONGEST_VALUE, metric_name
from ganseg_dist.tracking.pyfunc import ModelUpload
from ganseg_dist.tracking.tracked_run import TrackedRun

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, RunTag

ENDS = ("mean", "low", "high")
DESCRIPTION = "mlflow.note.content"
"""The tag that MLflow's page of a run shows as its description, Markdown."""


def log_evaluation(run: Run, part: str, scores: Mapping[str, Interval]) -> None:
    """Log the mean and interval of each score, its better direction, and the files.

    Warns when MLflow is unreachable.
    """
    page = tracked(run)

    def send(client: MlflowClient) -> None:
        client.log_batch(page.run_id, metrics=score_metrics(part, scores), tags=direction_tags(part, scores))
        for file in sorted(run.evaluation(part).iterdir()):
            client.log_artifact(page.run_id, str(file), f"evaluation/{part}")

    page.persist(f"{part} scores", send)


def score_metrics(part: str, scores: Mapping[str, Interval]) -> list[Metric]:
    """PART/SCORE/mean, low and high of each score."""
    return metrics({f"{part}/{score}/{end}": getattr(value, end) for score, value in scores.items() for end in ENDS})


def direction_tags(part: str, scores: Iterable[str]) -> list[RunTag]:
    """Two tags that name the scores of PART that are better when larger, and those that are better when smaller.

    MLflow's metrics have no direction of their own. Raises ConfigError for a score that is not registered.
    """
    from mlflow.entities import RunTag

    better: dict[Mode, list[str]] = {"max": [], "min": []}
    for score in scores:
        if (mode := find_score(score).mode) is not None:
            better[mode].append(score)
    words: dict[Mode, str] = {"max": "larger_is_better", "min": "smaller_is_better"}
    return [
        RunTag(f"ganseg.{part}.{words[mode]}", ", ".join(names)[:LONGEST_VALUE])
        for mode, names in better.items()
        if names
    ]


def metrics(values: Mapping[str, float]) -> list[Metric]:
    """The finite values as metrics at time and step 0, so that logging them again adds no points."""
    from mlflow.entities import Metric

    return [Metric(metric_name(name), value, 0, 0) for name, value in values.items() if math.isfinite(value)]


def log_trial(trial: TrackedRun, scores: Mapping[str, float], tags: Mapping[str, str]) -> None:
    """Log a sweep's scores of a trial and its tags to the trial's own run, so that MLflow can sort trials by them."""

    def send(client: MlflowClient) -> None:
        from mlflow.entities import RunTag

        run_tags = [RunTag(name, value[:LONGEST_VALUE]) for name, value in tags.items() if value]
        client.log_batch(trial.run_id, metrics=metrics(scores), tags=run_tags)

    trial.persist("scores", send)


def log_experiment(
    parent: TrackedRun,
    means: Mapping[str, float],
    page: str,
    files: Sequence[Path],
    tags: Mapping[str, str] | None = None,
) -> None:
    """Log an experiment's table to its own run: means as metrics, a Markdown page as its description, and the files."""

    def send(client: MlflowClient) -> None:
        client.log_batch(parent.run_id, metrics=metrics(means))
        for name, value in (tags or {}).items():
            client.set_tag(parent.run_id, name, value)
        client.set_tag(parent.run_id, DESCRIPTION, page[:LONGEST_VALUE])
        for file in files:
            client.log_artifact(parent.run_id, str(file))

    parent.persist("table", send)


def log_calibration(run: Run) -> None:
    """Log the model with its new thresholds, in place of the one that training logged."""
    page = tracked(run)
    page.persist("calibrated model", ModelUpload(str(page.run_id), run.model).send)


def log_report(run: Run, report: Path) -> None:
    """Log the HTML page as an artifact."""
    page = tracked(run)
    page.persist("report", lambda client: client.log_artifact(page.run_id, str(report)))


def tracked(run: Run) -> TrackedRun:
    """The run's place in MLflow, as run.json has it."""
    stored = run.description().mlflow or MLflowRecord()
    # The saved URI has no password; the environment's has.
    return TrackedRun(os.environ.get("MLFLOW_TRACKING_URI") or stored.uri, stored.run_id)

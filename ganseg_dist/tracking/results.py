"""Adds the results of a run to its page in MLflow, and a federation's sites as child runs."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ganseg_dist.federation.record import FederationRecord
from ganseg_dist.metrics.registry import Mode, find_score
from ganseg_dist.metrics.statistics import Interval
from ganseg_dist.runs import MLflowRecord, Run
from ganseg_dist.tracking.description import LONGEST_VALUE, metric_name
from ganseg_dist.tracking.mlflow_tracker import POINTS_A_CALL, Point
from ganseg_dist.tracking.pyfunc import ModelUpload
from ganseg_dist.tracking.tracked_run import TrackedRun

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, RunTag

ENDS = ("mean", "low", "high")
DESCRIPTION = "mlflow.note.content"
"""The tag that MLflow's page of a run shows as its description, Markdown."""

SITE = "ganseg.site"
"""The tag that names a child's site."""


def log_evaluation(run: Run, part: str, scores: Mapping[str, Interval]) -> None:
    """Log the mean and interval of each score, its better direction, and the files."""
    page = tracked(run)

    def send(client: MlflowClient) -> None:
        client.log_batch(page.run_id, metrics=score_metrics(part, scores), tags=direction_tags(part, scores))
        for file in sorted(run.evaluation(part).iterdir()):
            client.log_artifact(page.run_id, str(file), f"evaluation/{part}")

    page.persist(f"{part} scores", send)


def score_metrics(part: str, scores: Mapping[str, Interval]) -> list[Metric]:
    """PART/SCORE/mean, low and high of each score."""
    return metrics({f"{part}/{score}/{end}": getattr(value, end) for score, value in scores.items() for end in ENDS})


def direction_tags(part: str, scores: Collection[str]) -> list[RunTag]:
    """Two tags that name the scores of PART that are better when larger, and those that are better when smaller.

    MLflow's metrics have no direction. Raises ConfigError for a score that is not registered.
    """
    from mlflow.entities import RunTag

    better: dict[Mode, str] = {"max": "larger_is_better", "min": "smaller_is_better"}
    names = {tag: [score for score in scores if find_score(score).mode == mode] for mode, tag in better.items()}
    return [RunTag(f"ganseg.{part}.{tag}", ", ".join(of)[:LONGEST_VALUE]) for tag, of in names.items() if of]


def metrics(values: Mapping[str, float]) -> list[Metric]:
    """The finite values as metrics at time and step 0, so that logging them again adds no points."""
    from mlflow.entities import Metric

    return [Metric(metric_name(name), value, 0, 0) for name, value in values.items() if math.isfinite(value)]


def log_trial(trial: TrackedRun, scores: Mapping[str, float], tags: Mapping[str, str]) -> None:
    """Log a sweep's scores of a trial and its tags to the trial's run, so that MLflow can sort trials by them."""

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
    """Log an experiment's table to its run: means as metrics, a Markdown page as its description, and the files."""

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
    """The run's place in MLflow, from run.json."""
    stored = run.description().mlflow or MLflowRecord()
    # The saved URI has no password; the environment's has.
    return TrackedRun(os.environ.get("MLFLOW_TRACKING_URI") or stored.uri, stored.run_id)


def log_sites(run: Run) -> None:
    """Log a child run a site from federation.json: its counts, and by round its weight, losses and scores.

    Metrics have the names and steps of the federation's, so that MLflow draws them in one chart. Logging them again
    writes the same points to the same children. Warns when MLflow is unreachable; does nothing without federation.json.
    """
    page, record = tracked(run), run.federation()
    if page.run_id is None or record is None:
        return

    def send(client: MlflowClient) -> None:
        _log_points(client, str(page.run_id), federation_points(record))
        parent = client.get_run(page.run_id)
        children = client.search_runs(
            [parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{page.run_id}'", max_results=1000
        )
        earlier = {child.data.tags.get(SITE): child.info.run_id for child in children}
        for site in record.names:
            child = earlier.get(site) or _create_child(client, parent.info.experiment_id, str(page.run_id), run, site)
            _describe(client, child, record, site)

    page.persist("sites", send)


def _create_child(client: MlflowClient, experiment_id: str, parent_id: str, run: Run, site: str) -> str:
    tags = {"mlflow.parentRunId": parent_id, SITE: site, "ganseg.run": run.name}
    return str(client.create_run(experiment_id, run_name=f"{run.name}.{site}", tags=tags).info.run_id)


def _describe(client: MlflowClient, child: str, record: FederationRecord, site: str) -> None:
    """Log counts, outcome and curves, and finish the child: federation.json is written when the federation ends."""
    from mlflow.entities import Param

    client.log_batch(child, params=[Param(name, value) for name, value in site_params(record, site).items()])
    _log_points(client, child, site_points(record, site))
    client.set_terminated(child, "FINISHED")


def _log_points(client: MlflowClient, run_id: str, points: Iterable[Point]) -> None:
    from mlflow.entities import Metric

    metrics = [Metric(metric_name(name), value, 0, step) for name, value, step in points]
    for start in range(0, len(metrics), POINTS_A_CALL):
        client.log_batch(run_id, metrics=metrics[start : start + POINTS_A_CALL])


def site_params(record: FederationRecord, site: str) -> dict[str, str]:
    """The site's counts, key and code, and how many rounds used its update or left it out."""
    params: dict[str, object] = {"site": site}
    if site in record.sites:
        joined = record.sites[site]
        params |= joined.model_dump(include={"patients", "cases", "slices", "key"}, exclude_none=True)
        params |= {} if joined.versions is None else {"code": joined.versions.text}
    params |= {"rounds": len(record.of_site(site)), "left_out": len(record.left_out(site))}
    return {name: str(value) for name, value in params.items()}


def site_points(record: FederationRecord, site: str) -> Iterator[Point]:
    """Each number of the site, at the epochs done by the end of its round."""
    steps = {kept.round: (step, kept.stage) for kept, step in zip(record.rounds, record.epochs_done, strict=True)}
    for number, part in record.of_site(site).items():
        step, stage = steps[number]
        values = {"weight": part.weight, "examples": part.examples, **part.losses}
        values |= {f"{stage}/{name}": score for name, score in part.scores.items()}
        yield from ((name, value, step) for name, value in values.items())


def federation_points(record: FederationRecord) -> Iterator[Point]:
    """Points that the training curves lack: bytes transferred in each round, and epsilon spent by its end."""
    for kept, step in zip(record.rounds, record.epochs_done, strict=True):
        yield "federation/bytes_to_sites", float(kept.bytes_out), step
        yield "federation/bytes_from_sites", float(kept.bytes_in), step
        if kept.epsilon is not None:
            yield "federation/epsilon", kept.epsilon, step

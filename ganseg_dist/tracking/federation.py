"""Logs a federation's sites to MLflow: a child run for each, with curves that lie over the federation's own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from ganseg_dist.federation.record import FederationRecord
from ganseg_dist.runs import Run
from ganseg_dist.tracking.contents import metric_name
from ganseg_dist.tracking.mlflow_tracker import POINTS_A_CALL, Point
from ganseg_dist.tracking.results import tracked

if TYPE_CHECKING:
    from mlflow import MlflowClient

SITE = "ganseg.site"
"""The tag that names a child's site."""


def log_sites(run: Run) -> None:
    """Log a child run a site from federation.json: its counts, and by round its weight, losses and scores.

    Metrics have the names and steps of the federation's own, so that MLflow draws them in one chart. Logging them again
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
    """The counts that the site reported, and how many rounds used its update or left it out."""
    counts = record.sites[site].model_dump(exclude_none=True) if site in record.sites else {}
    rounds = {"rounds": len(record.of_site(site)), "left_out": len(record.left_out(site))}
    return {"site": site} | {name: str(count) for name, count in (counts | rounds).items()}


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

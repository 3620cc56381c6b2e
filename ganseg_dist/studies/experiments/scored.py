"""Trials that train nothing: each scores a finished run in another way and is a child of the experiment in MLflow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ganseg_dist.data.cohort import Case
from ganseg_dist.data.readers import read_cohort
from ganseg_dist.runs import Run
from ganseg_dist.studies.experiments.measures import Measure
from ganseg_dist.studies.experiments.run import Job, Outcome
from ganseg_dist.tracking.results import score_metrics

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True, slots=True)
class ScoredTrial:
    """One way of scoring a run's test cases."""

    name: str
    labels: Mapping[str, str | int | float]
    run: Run
    cases: tuple[str, ...]
    """Ids of the test cases."""
    seed: int = 0
    """Seed of the random changes, combined with the case."""

    def description(self) -> dict[str, Any]:
        """Its description in experiment.json, with the thresholds: a run calibrated again counts as another."""
        return {
            "labels": dict(self.labels),
            "run": self.run.name,
            "weights": self.run.read("model/model.json")["weights"],
            "thresholds": self.run.read("model/thresholds.json"),
            "cases": list(self.cases),
            "seed": self.seed,
        }

    def find_cases(self, job: Job) -> list[Case]:
        """The cases in the job's cohort."""
        return [case for case in read_cohort(job.data, job.layout, job.labels).cases if case.id in self.cases]


def log_child(job: Job, outcome: Outcome, measures: Sequence[Measure]) -> None:
    """Log a child run of the experiment in MLflow, with labels and scores; queued when MLflow cannot be reached."""
    if job.parent.run_id is None:
        return
    names = {name for row in outcome.rows for name in row.scores}
    scores = {
        measure.name: asdict(measure.interval([outcome.rows]))
        for measure in measures
        if names.issuperset(measure.needed)
    }

    def send(client: MlflowClient) -> None:
        from mlflow.entities import Param

        tags = {"mlflow.parentRunId": str(job.parent.run_id)}
        labels = {"run": job.trial.run.name, **outcome.labels}
        child = client.create_run(str(job.parent.experiment_id), run_name=job.run_name, tags=tags).info.run_id
        client.log_batch(
            child,
            metrics=score_metrics("test", scores),
            params=[Param(name, str(value)) for name, value in labels.items()],
        )
        client.set_terminated(child, "FINISHED")

    job.parent.persist(job.run_name, send)

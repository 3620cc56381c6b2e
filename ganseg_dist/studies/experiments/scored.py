"""Score a finished run's test cases in a trial that trains nothing, and log it below the experiment in MLflow."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ganseg_dist.config import RunConfig
from ganseg_dist.data.cohort import Case
from ganseg_dist.data.readers import read_cohort
from ganseg_dist.evaluation.results import CaseRow
from ganseg_dist.inference.predictor import Predictor
from ganseg_dist.studies.experiments.measures import Measure
from ganseg_dist.studies.experiments.run import Job
from ganseg_dist.studies.trial import ScoredTrial, TrialResult
from ganseg_dist.tracking.results import score_metrics

if TYPE_CHECKING:
    from mlflow import MlflowClient


def score_trial(
    job: Job,
    score: Callable[[Predictor, Case], Sequence[CaseRow]],
    measures_of: Callable[[RunConfig], Sequence[Measure]],
) -> TrialResult:
    """Score the trial's cases with the run's model, and log the measures."""
    trial: ScoredTrial = job.trial
    started = time.monotonic()
    predictor = Predictor.load(trial.run.model)
    cases = [case for case in read_cohort(job.data, job.layout, job.labels).cases if case.id in trial.cases]
    rows = tuple(row for case in cases for row in score(predictor, case))
    patients_known = all(case.patient_known for case in cases)
    result = TrialResult(job.run_name, trial.values, time.monotonic() - started, rows, patients_known)
    _log_child(job, result, measures_of(predictor.config))
    return result


def _log_child(job: Job, result: TrialResult, measures: Sequence[Measure]) -> None:
    """Log a child run of the experiment in MLflow, with values and scores; queued when MLflow cannot be reached."""
    if job.parent.run_id is None:
        return
    names = {name for row in result.rows for name in row.scores}
    scores = {measure.name: measure.interval([result.rows]) for measure in measures if names.issuperset(measure.needed)}

    def send(client: MlflowClient) -> None:
        from mlflow.entities import Param

        values = {"run": job.trial.run.name, **result.values}
        experiment, tags = str(job.parent.experiment_id), job.parent.child_tags
        child = client.create_run(experiment, run_name=job.run_name, tags=tags).info.run_id
        client.log_batch(
            child,
            metrics=score_metrics("test", scores),
            params=[Param(name, str(value)) for name, value in values.items()],
        )
        client.set_terminated(child, "FINISHED")

    job.parent.persist(job.run_name, send)

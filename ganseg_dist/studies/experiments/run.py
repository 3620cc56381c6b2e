"""Run and score an experiment's trials, in parallel on a cluster or one after the other; finished ones are kept."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ganseg_dist.cluster.ray_cluster import map_on_cluster
from ganseg_dist.cluster.shared_paths import cluster_with_shared_paths
from ganseg_dist.config import RunConfig
from ganseg_dist.data.cohort import Case, Cohort, Split
from ganseg_dist.data.readers import read_cohort
from ganseg_dist.display import Convention, display_convention
from ganseg_dist.errors import DataError, GansegError, RunError
from ganseg_dist.evaluation.arms import ModelArm
from ganseg_dist.evaluation.classification import classify, save_classification
from ganseg_dist.evaluation.results import CaseRow
from ganseg_dist.evaluation.segmentation import evaluate, save_evaluation
from ganseg_dist.inference.predictor import Predictor
from ganseg_dist.planning.mapper import Bar, Mapper, map_here, no_bar
from ganseg_dist.planning.prepare import prepared_slices
from ganseg_dist.planning.request import TrainingRequest
from ganseg_dist.runs import Run, name_of_trial, named_run, runs_root
from ganseg_dist.storage.sync import syncing
from ganseg_dist.studies.experiments.measures import Measure, image_rows
from ganseg_dist.studies.study import Study, write_result
from ganseg_dist.studies.trial import ScoredTrial, Trial, TrialResult
from ganseg_dist.tracking.results import log_evaluation, score_metrics
from ganseg_dist.tracking.tracked_run import TrackedRun, open_parent
from ganseg_dist.training.run_training import only_trainer
from ganseg_dist.training.session import train_session

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True, slots=True)
class Job:
    """Inputs of a trial's process."""

    runs: Path
    run_name: str
    result_file: Path
    trial: Any
    """Argument of `work`."""
    work: Callable[[Job], TrialResult]
    data: Path
    layout: str | None
    labels: str | None
    parent: TrackedRun
    convention: Convention
    """Orientation of example pictures."""


def train_and_score(job: Job) -> TrialResult:
    """Train the trial's run and score it on the test patients."""
    trial: Trial = job.trial
    tags = {f"ganseg.{name}": str(value) for name, value in trial.values.items()} | job.parent.child_tags
    request = TrainingRequest(
        trial.config, job.data, job.layout, run_name=job.run_name, local=True, split=trial.split, tags=tags,
        labels=job.labels, convention=job.convention,
    )  # fmt: skip
    run = train_session(request)
    cohort = read_cohort(job.data, job.layout, job.labels)
    rows = tuple(score_run(run, cohort, trial.split))
    patients_known = all(case.patient_known for case in cohort.of_patients(trial.split.test))
    seconds = run.description().seconds or 0.0
    return TrialResult(run.name, trial.values, seconds, rows, patients_known)


def run_experiment(
    name: str,
    kind: str,
    trials: Sequence[Trial] | Sequence[ScoredTrial],
    data: Path,
    layout: str | None = None,
    labels: str | None = None,
    *,
    work: Callable[[Job], TrialResult] = train_and_score,
    local: bool = True,
    mapper: Mapper | None = None,
    bar: Bar = no_bar,
    task: str = "trials",
) -> tuple[Study, list[TrialResult], TrackedRun]:
    """Run the trials that are not finished yet; the results are in the order of the trials.

    Returns the parent run in MLflow beside them.

    Args:
        local: whether trials run in this process, one after the other, or in parallel on a cluster.
        mapper: runs the trials in place of either.
        task: label of the progress bar, after the kind.

    Raises RunError when the name belongs to other trials, another process runs them, or a trial fails, with the
    message of the first failure; results of finished trials are kept.
    """
    convention = display_convention()
    request = {
        "kind": kind,
        "data": str(data.absolute()),
        "labels": labels,
        "trials": {trial.name: trial.describe() for trial in trials},
    }
    study = Study.of_request(named_run(name), request)
    problems = []
    with ExitStack() as stack:
        if not local:
            stack.enter_context(cluster_with_shared_paths(data))
        advance = stack.enter_context(bar(f"{kind}: {task}"))
        study.begin()
        stack.enter_context(only_trainer(study.run))
        remaining = study.remaining()
        parent = open_parent(study.folder, kind, _common_params(study))
        jobs = [
            Job(
                runs_root(), name_of_trial(name, trial.name), study.result_file(trial.name), trial, work,
                data.absolute(), layout, labels, parent, convention,
            )
            for trial in trials
            if trial.name in remaining
        ]  # fmt: skip
        done = len(trials) - len(jobs)
        advance(done, len(trials))
        with syncing(study.folder, lambda: sorted((study.folder / "trials").glob("*.json"))):
            for _, problem in (mapper or (map_here if local else map_on_cluster))(_run_trial, jobs):
                done += 1
                advance(done, len(trials))
                if problem is not None:
                    problems.append(problem)
    if problems:
        parent.end("FAILED")
        raise RunError(f"{problems[0]} ({len(problems)} of {len(trials)} trials failed; the others are kept)")
    results = study.results()
    if len(results) < len(trials):
        raise RunError(f"{name}: results of its trials are damaged; rerun the same command to score them again")
    return study, list(results.values()), parent


def _common_params(study: Study) -> dict[str, str]:
    """Parameters of the experiment's parent run in MLflow: the recipe that trials vary, or the run that they score."""
    first = next(iter(study.request["trials"].values()))
    subject = {"recipe": first["config"]["recipe"]} if "config" in first else {"run": first["run"]}
    return {"experiment": study.kind, **subject, "trials": str(len(study.trial_names))}


def _run_trial(job: Job) -> str | None:
    """Run one trial; a GansegError is returned as a message, so that the other trials continue."""
    os.environ["GANSEG_RUNS"] = str(job.runs)
    try:
        write_result(job.result_file, job.work(job))
    except GansegError as error:
        return f"{job.run_name}: {error}"
    return None


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


def score_run(run: Run, cohort: Cohort, split: Split) -> list[CaseRow]:
    """A row per case on its grid, or for a classifier a row per slice; saved as by `ganseg evaluate`."""
    score = {"segmentation": _score_cases, "classification": _score_images}[run.config().system.task]
    return score(run, cohort, split)


def check_classes(config: RunConfig, cohort: Cohort, split: Split) -> None:
    """Prepare validation and test patients, so that missing classes are noticed before hours of training.

    Raises DataError when one of the two parts has images of fewer than two classes.
    """
    classes = config.data.classes or ()
    for part in ("validation", "test"):
        labels = prepared_slices(cohort.of_patients(getattr(split, part)), config).label
        present = [name for index, name in enumerate(classes) if (labels == index).any()]
        if len(present) < 2:
            content = f"images of {present[0]} alone" if present else "no image of a known class"
            raise DataError(
                f"{cohort.root}: its {part} patients have {content}; give more patients, "
                f"or a larger data.{part}_fraction"
            )


def _score_cases(run: Run, cohort: Cohort, split: Split) -> list[CaseRow]:
    cases = [case for case in cohort.of_patients(split.test) if case.mask is not None]
    predictor = Predictor.load(run.model)
    result = evaluate([ModelArm(run.name, "model", predictor)], cases, "test")
    summary = save_evaluation(run.evaluation("test"), result, predictor)
    log_evaluation(run, "test", summary.rows[0].scores)
    return result.rows[run.name]


def _score_images(run: Run, cohort: Cohort, split: Split) -> list[CaseRow]:
    """A row per slice; two classes are also called at the threshold of the usual validation specificity."""
    predictor = Predictor.load(run.model)
    config, classes = predictor.config, predictor.config.data.classes or ()
    validation, test = (
        classify(predictor.system, prepared_slices(cases, config), classes, device=predictor.device) if cases else ()
        for cases in (cohort.of_patients(split.validation), cohort.of_patients(split.test))
    )
    summary = save_classification(run.evaluation("test"), test, classes, validation)
    log_evaluation(run, "test", summary.scores.intervals)
    point = summary.operating_point
    return image_rows(test, classes, None if point is None else point.threshold)

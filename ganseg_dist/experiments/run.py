"""Runs an experiment's trials, side by side on a cluster or one after the other, and goes on where it was.

runs/NAME/experiment.json    what was asked: the kind, the data, every trial's name and config
runs/NAME/trials/TRIAL.json  what a finished trial scored on its test patients
runs/NAME/table.csv, table.json, figure.png
runs/NAME.TRIAL/             the trial's own run, like any other
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ganseg_dist.atomic import write_json
from ganseg_dist.data.readers import read_cohort
from ganseg_dist.errors import GansegError, RunError
from ganseg_dist.experiments.trials import Trial
from ganseg_dist.inference.arms import ModelArm
from ganseg_dist.inference.evaluation import CaseRow, evaluate, save_evaluation
from ganseg_dist.inference.predictor import Predictor
from ganseg_dist.runners.prepare import Mapper, map_here
from ganseg_dist.runners.session import TrainingRequest, train_session
from ganseg_dist.runs import Run, named_run, runs_root
from ganseg_dist.tracking.tracked_run import TrackedRun, open_parent


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a trial scored."""

    labels: dict[str, Any]
    seconds: float
    rows: tuple[CaseRow, ...]
    """Its test cases."""


@dataclass(frozen=True, slots=True)
class _Job:
    """All that a trial's process is sent."""

    runs: Path
    run_name: str
    outcome: Path
    trial: Trial
    data: Path
    layout: str | None
    parent: str | None


def run_experiment(
    name: str,
    kind: str,
    trials: Sequence[Trial],
    data: Path,
    layout: str | None = None,
    *,
    mapper: Mapper = map_here,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Run, list[Outcome], TrackedRun]:
    """Run what is not finished yet; the outcomes are in the order of the trials.

    Raises RunError when the name stands for other trials, and the first trial's GansegError: the finished ones stay.
    """
    experiment = named_run(name)
    _begin(experiment, kind, trials, data)
    parent = open_parent(experiment.folder, kind)
    jobs = [
        _Job(
            runs_root(), f"{name}.{trial.name}", experiment.folder / "trials" / f"{trial.name}.json",
            trial, data.absolute(), layout, parent.run_id,
        )
        for trial in trials
    ]  # fmt: skip
    unfinished = [job for job in jobs if not job.outcome.exists()]
    done = len(jobs) - len(unfinished)
    advance(done, len(jobs))
    problems = []
    for _, problem in mapper(_run_trial, unfinished):
        done += 1
        advance(done, len(jobs))
        if problem is not None:
            problems.append(problem)
    if problems:
        parent.end("FAILED")
        raise RunError(f"{problems[0]} ({len(problems)} of {len(jobs)} trials failed; the others are kept)")
    return experiment, [_read(job.outcome) for job in jobs], parent


def _begin(experiment: Run, kind: str, trials: Sequence[Trial], data: Path) -> None:
    asked = {
        "kind": kind,
        "data": str(data.absolute()),
        "trials": {
            trial.name: {
                "labels": dict(trial.labels),
                "config": trial.config.model_dump(mode="json"),
                "split": trial.split.to_dict(),
            }
            for trial in trials
        },
    }
    file = experiment.folder / "experiment.json"
    if not file.exists():
        if experiment.folder.exists():
            raise RunError(f"{experiment.folder}: is a run, not an experiment; choose another --run-name")
        write_json(file, asked)
    elif experiment.read("experiment.json") != json.loads(json.dumps(asked)):
        raise RunError(f"{experiment.name}: was begun with other trials or data; choose another --run-name")


def _run_trial(job: _Job) -> str | None:
    """Train and score one trial; what a person must mend is returned, so that the other trials go on."""
    os.environ["GANSEG_RUNS"] = str(job.runs)
    try:
        tags = {} if job.parent is None else {"mlflow.parentRunId": job.parent}
        request = TrainingRequest(
            job.trial.config, job.data, job.layout,
            run_name=job.run_name, local=True, split=job.trial.split, tags=tags,
        )  # fmt: skip
        run = train_session(request)
        rows = _score(run, job)
        seconds = float(run.description().get("seconds") or 0.0)
        outcome = {"labels": dict(job.trial.labels), "seconds": seconds, "rows": [asdict(row) for row in rows]}
        write_json(job.outcome, outcome)
    except GansegError as error:
        return f"{job.run_name}: {error}"
    return None


def _score(run: Run, job: _Job) -> list[CaseRow]:
    """The trial's test cases, on their own grids."""
    cohort = read_cohort(job.data, job.layout)
    cases = [case for case in cohort.of_patients(job.trial.split.test) if case.mask is not None]
    predictor = Predictor.load(run.model)
    result = evaluate([ModelArm(run.name, "model", predictor)], cases, "test")
    save_evaluation(run.evaluation("test"), result, predictor)
    return result.rows[run.name]


def _read(file: Path) -> Outcome:
    said = json.loads(file.read_text())
    return Outcome(said["labels"], said["seconds"], tuple(CaseRow(**row) for row in said["rows"]))

"""Run an experiment's trials, in parallel on a cluster or one after the other, and resume an interrupted one.

runs/NAME/experiment.json    the kind, the data, and the description of each trial
runs/NAME/trials/TRIAL.json  scores of a finished trial on its test patients
runs/NAME/table.csv, table.json, figure.png
runs/NAME.TRIAL/             the trial's own run, like any other
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from ganseg_dist.atomic import write_json
from ganseg_dist.config import RunConfig
from ganseg_dist.data.readers import read_cohort
from ganseg_dist.digests import Damaged, read_sealed, sealed
from ganseg_dist.display import Convention, display_convention
from ganseg_dist.errors import GansegError, RunError
from ganseg_dist.evaluation.segmentation import CaseRow
from ganseg_dist.planning.mapper import Mapper, map_here
from ganseg_dist.planning.request import TrainingRequest
from ganseg_dist.planning.run_folder import first_difference
from ganseg_dist.runs import Run, name_of_trial, named_run, runs_root
from ganseg_dist.storage.sync import syncing
from ganseg_dist.studies.experiments.scoring import score_run
from ganseg_dist.studies.experiments.trials import Trial
from ganseg_dist.tracking.tracked_run import TrackedRun, open_parent
from ganseg_dist.training.session import train_session

logger = logging.getLogger(__name__)


class TrialDescription(Protocol):
    """One trial of an experiment: a training run, or a way of scoring an existing run."""

    @property
    def name(self) -> str:
        """Unique within the experiment, fit for a file."""
        ...

    @property
    def labels(self) -> Mapping[str, str | int | float]:
        """What distinguishes it from the other trials, as columns of the table."""
        ...

    def description(self) -> dict[str, Any]:
        """Its description in experiment.json, as JSON."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a trial."""

    labels: dict[str, Any]
    seconds: float
    rows: tuple[CaseRow, ...]
    """Scores of its test cases, or for a classifier of their images."""
    patients_known: bool = True
    """False where images of unknown patients each count as a patient."""


@dataclass(frozen=True, slots=True)
class Job:
    """Inputs of a trial's process."""

    runs: Path
    run_name: str
    outcome: Path
    trial: Any
    """Argument of `work`."""
    work: Callable[[Job], Outcome]
    data: Path
    layout: str | None
    labels: str | None
    parent: TrackedRun
    convention: Convention
    """Orientation of example pictures."""


def train_and_score(job: Job) -> Outcome:
    """Train the trial's own run and score it on the test patients."""
    trial: Trial = job.trial
    tags = {f"ganseg.{name}": str(value) for name, value in trial.labels.items()}
    if job.parent.run_id is not None:
        tags["mlflow.parentRunId"] = job.parent.run_id
    request = TrainingRequest(
        trial.config, job.data, job.layout, run_name=job.run_name, local=True, split=trial.split, tags=tags,
        labels=job.labels, convention=job.convention,
    )  # fmt: skip
    run = train_session(request)
    cohort = read_cohort(job.data, job.layout, job.labels)
    rows = score_run(run, cohort, trial.split)
    patients_known = all(case.patient_known for case in cohort.of_patients(trial.split.test))
    return Outcome(dict(trial.labels), float(run.description().get("seconds") or 0.0), tuple(rows), patients_known)


def run_experiment(
    name: str,
    kind: str,
    trials: Sequence[TrialDescription],
    data: Path,
    layout: str | None = None,
    labels: str | None = None,
    *,
    work: Callable[[Job], Outcome] = train_and_score,
    mapper: Mapper = map_here,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Run, list[Outcome], TrackedRun]:
    """Run the trials that are not finished yet; the outcomes are in the order of the trials.

    Raises RunError when the name belongs to other trials, or a trial fails, with the message of the first failure;
    outcomes of finished trials are kept.
    """
    convention = display_convention()
    experiment = named_run(name)
    _begin_experiment(experiment, kind, trials, data, labels)
    parent = open_parent(experiment.folder, kind, _common_params(kind, trials))
    jobs = [
        Job(
            runs_root(), name_of_trial(name, trial.name), experiment.folder / "trials" / f"{trial.name}.json",
            trial, work, data.absolute(), layout, labels, parent, convention,
        )
        for trial in trials
    ]  # fmt: skip
    unfinished = [job for job in jobs if not _is_scored(job.outcome)]
    done = len(jobs) - len(unfinished)
    advance(done, len(jobs))
    problems = []
    with syncing(experiment.folder, lambda: sorted((experiment.folder / "trials").glob("*.json"))):
        for _, problem in mapper(_run_trial, unfinished):
            done += 1
            advance(done, len(jobs))
            if problem is not None:
                problems.append(problem)
    if problems:
        parent.end("FAILED")
        raise RunError(f"{problems[0]} ({len(problems)} of {len(jobs)} trials failed; the others are kept)")
    return experiment, [_read_outcome(job.outcome) for job in jobs], parent


def _common_params(kind: str, trials: Sequence[TrialDescription]) -> dict[str, str]:
    """Parameters of the experiment's parent run in MLflow: the recipe that trials vary, or the run that they score."""
    description = trials[0].description()
    subject = {"recipe": description["config"]["recipe"]} if "config" in description else {"run": description["run"]}
    return {"experiment": kind, **subject, "trials": str(len(trials))}


def _begin_experiment(
    experiment: Run, kind: str, trials: Sequence[TrialDescription], data: Path, labels: str | None
) -> None:
    description = {
        "kind": kind,
        "data": str(data.absolute()),
        "labels": labels,
        "trials": {trial.name: trial.description() for trial in trials},
    }
    file = experiment.folder / "experiment.json"
    if not file.exists():
        if experiment.folder.exists() and any(experiment.folder.iterdir()):
            raise RunError(f"{experiment.folder}: is a run, not an experiment; choose another --run-name")
        experiment.write("experiment.json", description)
    elif experiment.read("experiment.json") != json.loads(json.dumps(description)):
        if not any((experiment.folder / "trials").glob("*.json")) and not _trained(experiment, trials):
            # An experiment that failed before it trained anything does not reserve its name.
            experiment.write("experiment.json", description)
            return
        difference = _describe_difference(experiment.read("experiment.json"), description)
        raise RunError(
            f"{experiment.name}: was begun with other trials or data ({difference}); choose another --run-name"
        )


def _trained(experiment: Run, trials: Sequence[TrialDescription]) -> bool:
    return any((named_run(name_of_trial(experiment.name, trial.name)).folder / "run.json").exists() for trial in trials)


def _describe_difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The first difference between two experiment.json, in words."""
    for name in ("kind", "data", "labels"):
        if before.get(name) != now[name]:
            return f"{name} was {before.get(name)}, is {now[name]}"
    earlier, later = before["trials"], now["trials"]
    for name in (*earlier, *later):
        if name not in later or name not in earlier:
            return f"trial {name} is {'no longer' if name in earlier else 'new'} among them"
        if "config" in later[name] and earlier[name]["config"] != later[name]["config"]:
            configs = (RunConfig.from_json(json.dumps(experiment[name]["config"])) for experiment in (earlier, later))
            return first_difference(*configs)
    return "other patients"


def _run_trial(job: Job) -> str | None:
    """Run one trial; a GansegError is returned as a message, so that the other trials go on."""
    os.environ["GANSEG_RUNS"] = str(job.runs)
    try:
        write_json(job.outcome, sealed(asdict(job.work(job))))
    except GansegError as error:
        return f"{job.run_name}: {error}"
    return None


def _is_scored(file: Path) -> bool:
    """Whether a trial was scored; a damaged outcome is logged as a warning and counts as not scored."""
    if not file.exists():
        return False
    try:
        read_sealed(file)
    except Damaged as damage:
        logger.warning("%s; the trial is scored again", damage)
        return False
    return True


def _read_outcome(file: Path) -> Outcome:
    """Read a trial's outcome. Raises RunError when the file is damaged."""
    try:
        record = read_sealed(file)
    except Damaged as damage:
        raise RunError(f"{damage}; start the same command again to score the trial again") from None
    rows = tuple(CaseRow(**row) for row in record["rows"])
    return Outcome(record["labels"], record["seconds"], rows, record.get("patients_known", True))

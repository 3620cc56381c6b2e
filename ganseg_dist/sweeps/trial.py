"""One trial of a sweep: a run like any other, whose epochs are reported to Ray Tune as they end."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ganseg_dist.atomic import write_text
from ganseg_dist.config import RunConfig, override
from ganseg_dist.data.cohort import Cohort, Split
from ganseg_dist.engine.checkpoint import FolderCheckpoints
from ganseg_dist.engine.tracker import NullTracker
from ganseg_dist.engine.world import World
from ganseg_dist.errors import TrainingDiverged
from ganseg_dist.inference.arms import ModelArm
from ganseg_dist.inference.evaluation import evaluate
from ganseg_dist.inference.predictor import Predictor
from ganseg_dist.runners.attempt import carry_out, only_trainer
from ganseg_dist.runners.local import train_member
from ganseg_dist.runners.plan import Prepared, open_run
from ganseg_dist.runners.ray_train import train_on_ray
from ganseg_dist.runs import Run, named_run
from ganseg_dist.sweeps.metric import Metric, scores_so_far
from ganseg_dist.systems import build_system
from ganseg_dist.tracking.mlflow_tracker import MLflowTracker
from ganseg_dist.tracking.tracked_run import TrackedRun

DIVERGED = TrainingDiverged.__name__


@dataclass(frozen=True, slots=True)
class TrialJob:
    """All that a trial's process is sent beside its values."""

    runs: Path
    sweep: str
    config: RunConfig
    """Resolved; a trial changes the fields of the space."""
    learnt_from: Mapping[str, Any]
    cohort: Cohort
    split: Split
    prepared: Prepared
    metrics: tuple[Metric, ...]
    request: Mapping[str, Any]
    parent: TrackedRun
    workers: int = 1
    gpus: bool = False

    def train(self, values: dict[str, Any]) -> None:
        """What Tune calls."""
        train_trial(values, self)

    def run_of(self, number: str) -> Run:
        """The run of the trial with this number."""
        return named_run(f"{self.sweep}.{number}")


def train_trial(values: dict[str, Any], job: TrialJob) -> None:
    """Train with these values of the space's fields, from the checkpoint that Tune gives where it gives one.

    A loss that becomes infinite ends the trial without a score: to try the same again would be the same again.
    """
    from ray import tune

    started = time.monotonic()
    os.environ["GANSEG_RUNS"] = str(job.runs)
    config = override(job.config, values)
    run = job.run_of(str(tune.get_context().get_trial_name()))
    monitors = {stage.name: stage.monitor for stage in build_system(config).stages}
    if run.finished and run.config() == config:  # and killed before Tune had written so
        tune.report(scores_so_far(run.read("history.json"), job.metrics, monitors, config))
        _report_whole_scans(run, config, job, monitors)
        return
    _begin_from(tune.get_checkpoint(), run)
    if (run.folder / "run.json").exists() and run.config() != config:  # PBT goes on with other values
        write_text(run.folder / "config.json", config.to_json())
    run, _ = open_run(
        run.name, config, dict(job.learnt_from), job.cohort, split=job.split,
        request=dict(job.request), workers=job.workers, device="cuda" if job.gpus else "cpu", sweep=job.sweep,
    )  # fmt: skip

    def report(checkpoint: Path) -> None:
        history = json.loads((checkpoint / "state.json").read_text())["position"]["history"]
        if history:
            scores = scores_so_far(history, job.metrics, monitors, config)
            tune.report(scores, checkpoint=tune.Checkpoint.from_directory(checkpoint))

    def train(tracked: TrackedRun) -> Path:
        train_reporting = _train_on_workers if job.workers > 1 else _train_here
        return train_reporting(run, config, job, tracked, report)

    with only_trainer(run):
        tags = {"ganseg.sweep": job.sweep}
        if job.parent.run_id is not None:
            tags["mlflow.parentRunId"] = job.parent.run_id
        try:
            carry_out(run, train, monitors=monitors, tags=tags, started=started)
        except TrainingDiverged:
            tune.report(dict.fromkeys((metric.name for metric in job.metrics), math.nan))
            return
    _report_whole_scans(run, config, job, monitors)


def _begin_from(checkpoint: Any, run: Run) -> None:
    """Tune's checkpoint in place of whatever the run had: it may be another trial's, or an earlier one."""
    shutil.rmtree(run.checkpoints, ignore_errors=True)
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            FolderCheckpoints(run.checkpoints).save({}, partial(_copy, Path(folder)))


def _copy(folder: Path, to: Path) -> None:
    shutil.copytree(folder, to, dirs_exist_ok=True)


def _train_here(
    run: Run, config: RunConfig, job: TrialJob, tracked: TrackedRun, report: Callable[[Path], None]
) -> Path:
    checkpoints = ReportedCheckpoints(run.checkpoints, report)
    world = World(device=torch.device("cuda" if job.gpus else "cpu"))
    with closing(MLflowTracker.of(tracked)) as logged:
        train_member(config, job.prepared, world, logged, checkpoints)
    return checkpoints.last()


def _train_on_workers(
    run: Run, config: RunConfig, job: TrialJob, tracked: TrackedRun, report: Callable[[Path], None]
) -> Path:
    reports = ReportedEpochs(FolderCheckpoints(run.checkpoints), report)
    logged = partial(MLflowTracker.of, tracked)
    return train_on_ray(
        run, config, job.prepared, workers=job.workers, gpus=job.gpus, tracker=reports, worker_tracker=logged
    )


class ReportedCheckpoints(FolderCheckpoints):
    """Each epoch's checkpoint is reported as it is written; the end of a stage is no epoch."""

    def __init__(self, folder: Path, report: Callable[[Path], None]) -> None:
        super().__init__(folder)
        self.report = report

    def save(self, scores: Mapping[str, float], write: Callable[[Path], None]) -> None:
        """Write, then report."""
        super().save(scores, write)
        if scores:
            self.report(self.last())


class ReportedEpochs(NullTracker):
    """Reports what workers on other processes have written by the time that the driver hears of an epoch."""

    def __init__(self, checkpoints: FolderCheckpoints, report: Callable[[Path], None]) -> None:
        self.checkpoints, self.report = checkpoints, report

    def epoch(self, step: int, scores: Mapping[str, float]) -> None:
        """The newest checkpoint, which may be the epoch before."""
        newest = self.checkpoints.latest()
        if newest is not None:
            self.report(newest)


def _report_whole_scans(run: Run, config: RunConfig, job: TrialJob, monitors: Mapping[str, Any]) -> None:
    """Metrics of whole validation scans, after the last epoch."""
    from ray import tune

    whole = [metric for metric in job.metrics if not metric.every_epoch]
    if not whole:
        return
    cases = [case for case in job.cohort.of_patients(job.split.validation) if case.mask is not None]
    rows = evaluate([ModelArm(run.name, "model", Predictor.load(run.model))], cases, "validation").rows[run.name]
    scores = {metric.name: float(np.mean([metric.of_scan(row.scores) for row in rows])) for metric in whole}
    tune.report({**scores_so_far(run.read("history.json"), job.metrics, monitors, config), **scores})

"""One trial of a sweep: a run like any other, whose epochs are reported to Ray Tune as they end."""

from __future__ import annotations

import logging
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from ganseg_dist.atomic import copy_files, write_text
from ganseg_dist.cluster.shared_paths import check_worker_paths, training_places
from ganseg_dist.cluster.train import train_on_ray
from ganseg_dist.config import RunConfig, override
from ganseg_dist.data.cohort import Cohort, Split
from ganseg_dist.engine.checkpoint import FolderCheckpoints, checkpoint_damage, read_position
from ganseg_dist.engine.tracker import NullTracker
from ganseg_dist.engine.trainer import train_member
from ganseg_dist.engine.world import World
from ganseg_dist.errors import FederationError, TrainingDiverged
from ganseg_dist.evaluation.arms import ModelArm
from ganseg_dist.evaluation.segmentation import evaluate
from ganseg_dist.inference.predictor import Predictor
from ganseg_dist.planning.plan import Prepared, open_run
from ganseg_dist.runs import Run, named_run
from ganseg_dist.studies.sweeps.metric import Metric, scores_so_far
from ganseg_dist.studies.sweeps.privacy import charged
from ganseg_dist.studies.sweeps.record import Ending
from ganseg_dist.systems import build_system
from ganseg_dist.systems.base import Monitor
from ganseg_dist.tracking.mlflow_tracker import MLflowTracker
from ganseg_dist.tracking.tracked_run import TrackedRun
from ganseg_dist.training.run_training import only_trainer, run_training
from ganseg_dist.training.session import TrainingRequest

ENDS: Mapping[str, Ending] = {TrainingDiverged.__name__: "diverged", FederationError.__name__: "abandoned"}
"""Errors with which a trial ends for good, and what its ending is called."""

logger = logging.getLogger(__name__)

Monitors = Mapping[str, Monitor]
"""What chooses each stage's epoch, by stage."""


class Trainer(Protocol):
    """How a trial is trained: alone, or as hospitals would together."""

    def validate_setup(self, config: RunConfig, cohort: Cohort, split: Split) -> None:
        """Raises ConfigError or DataError, before any trial, for what could not be trained so."""

    def train(self, values: dict[str, Any], job: TrialJob) -> None:
        """Train with these values of the space's fields, reporting to Tune; called by Tune in the trial's process."""


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
    request: TrainingRequest
    parent: TrackedRun
    trials: int
    """Of the sweep, in all."""
    command: str
    """What a trial's run says it was made by; its process has a command line of Ray's."""
    trainer: Trainer

    def train(self, values: dict[str, Any]) -> None:
        """What Tune calls, on a node that may have joined after the others were asked what they see."""
        os.environ["GANSEG_RUNS"] = str(self.runs)
        check_worker_paths(training_places(named_run(self.sweep), self.prepared))
        self.trainer.train(values, self)

    def config_of(self, values: Mapping[str, Any]) -> RunConfig:
        """A trial's own."""
        return charged(override(self.config, values), self.trials, len(self.split.train))

    def run_of(self, number: str) -> Run:
        """The run of the trial with this number."""
        return named_run(f"{self.sweep}.{number}")

    @property
    def tags(self) -> dict[str, str]:
        """For MLflow, where the trial's run lies under the sweep's."""
        parent = {} if self.parent.run_id is None else {"mlflow.parentRunId": self.parent.run_id}
        return {"ganseg.sweep": self.sweep, **parent}

    def report_epoch(self, checkpoint: Path, config: RunConfig, monitors: Monitors, *, keep: bool) -> None:
        """To Tune: how training stands by this checkpoint; nothing before the first epoch.

        Args:
            keep: whether Tune may go on from the checkpoint, or hand it to another trial.
        """
        from ray import tune

        history = read_position(checkpoint).history
        if history:
            scores = scores_so_far(history, self.metrics, monitors, config)
            tune.report(scores, checkpoint=tune.Checkpoint.from_directory(checkpoint) if keep else None)

    def report_end(self, run: Run, config: RunConfig, monitors: Monitors) -> None:
        """To Tune: what a finished run came to, with the metrics of whole validation scans."""
        from ray import tune

        scores = scores_so_far(run.read("history.json"), self.metrics, monitors, config)
        whole = [metric for metric in self.metrics if not metric.every_epoch]
        if whole:
            cases = [case for case in self.cohort.of_patients(self.split.validation) if case.mask is not None]
            arm = ModelArm(run.name, "model", Predictor.load(run.model, "cuda" if self.request.gpus else "cpu"))
            rows = evaluate([arm], cases, "validation").rows[run.name]
            scores |= {metric.name: float(np.mean([metric.of_scan(row.scores) for row in rows])) for metric in whole}
        tune.report(scores)

    def report_without_score(self) -> None:
        """To Tune: the trial ends here. The reason is in its run; to try the same again would be the same again."""
        from ray import tune

        tune.report(dict.fromkeys((metric.name for metric in self.metrics), math.nan))


class TrainsAlone:
    """A trial as `ganseg train` trains: in its own process, or on workers of its own."""

    def validate_setup(self, config: RunConfig, cohort: Cohort, split: Split) -> None:
        """Whatever can be trained can be a trial."""

    def train(self, values: dict[str, Any], job: TrialJob) -> None:
        """From the checkpoint that Tune gives, where it gives one. A loss that becomes infinite ends the trial."""
        from ray import tune

        started = time.monotonic()
        config = job.config_of(values)
        run = job.run_of(str(tune.get_context().get_trial_name()))
        monitors = {stage.name: stage.monitor for stage in build_system(config).stages}
        if run.finished and run.config() == config:  # and killed before Tune had written so
            job.report_end(run, config, monitors)
            return
        _begin_from(tune.get_checkpoint(), run)
        if (run.folder / "run.json").exists() and run.config() != config:  # PBT goes on with other values
            write_text(run.folder / "config.json", config.to_json())
        request = job.request
        run, _ = open_run(
            run.name, config, dict(job.learnt_from), job.cohort, split=job.split, request=request.to_dict(),
            workers=request.workers, device="cuda" if request.gpus else "cpu", sweep=job.sweep,
            command=job.command,
        )  # fmt: skip

        def report(checkpoint: Path) -> None:
            job.report_epoch(checkpoint, config, monitors, keep=True)

        def train(tracked: TrackedRun) -> Path:
            train_reporting = _train_on_workers if request.workers > 1 else _train_here
            return train_reporting(run, config, job, tracked, report)

        with only_trainer(run):
            try:
                run_training(run, train, monitors=monitors, tags=job.tags, started=started)
            except TrainingDiverged:
                job.report_without_score()
                return
        if any(not metric.every_epoch for metric in job.metrics):
            job.report_end(run, config, monitors)


def _begin_from(checkpoint: Any, run: Run) -> None:
    """Tune's checkpoint in place of whatever the run had: it may be another trial's, or an earlier one."""
    shutil.rmtree(run.checkpoints, ignore_errors=True)
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            damage = checkpoint_damage(Path(folder))
            if damage is None:
                FolderCheckpoints(run.checkpoints).save({}, partial(copy_files, Path(folder)))
            else:
                logger.warning("%s; the trial %s is trained from its start", damage, run.name)


def _train_here(
    run: Run, config: RunConfig, job: TrialJob, tracked: TrackedRun, report: Callable[[Path], None]
) -> Path:
    checkpoints = ReportedCheckpoints(run.checkpoints, report)
    world = World(device=torch.device("cuda" if job.request.gpus else "cpu"))
    with closing(MLflowTracker.of(tracked, job.request.convention)) as logged:
        train_member(config, job.prepared.open(config), world, logged, checkpoints)
    return checkpoints.last()


def _train_on_workers(
    run: Run, config: RunConfig, job: TrialJob, tracked: TrackedRun, report: Callable[[Path], None]
) -> Path:
    reports = ReportedEpochs(FolderCheckpoints(run.checkpoints), report)
    logged = partial(MLflowTracker.of, tracked, job.request.convention)
    last = train_on_ray(
        run,
        config,
        job.prepared,
        workers=job.request.workers,
        gpus=job.request.gpus,
        tracker=reports,
        worker_tracker=logged,
    )
    reports.report_newest()
    return last


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
        self.reported: str | None = None

    def epoch(self, step: int, scores: Mapping[str, float]) -> None:
        """The newest checkpoint, which may be the epoch before."""
        self.report_newest()

    def report_newest(self) -> None:
        """Unless it was reported: the end of a stage is no epoch. A copy, for the workers drop what is older."""
        newest = self.checkpoints.newest()
        step = None if newest is None else newest.name.partition("-stage-")[0]
        if newest is None or step == self.reported:
            return
        with tempfile.TemporaryDirectory(prefix="ganseg-") as held:
            try:
                copy_files(newest, Path(held))
            except FileNotFoundError:  # dropped in this moment: there is a newer one
                self.report_newest()
                return
            self.report(Path(held))
        self.reported = step

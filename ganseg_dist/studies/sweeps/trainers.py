"""How a sweep's trial is trained: a run like any other that reports each epoch to Ray Tune as it ends."""

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
from typing import Any

import numpy as np
import torch

from ganseg_dist.atomic import copy_files, write_text
from ganseg_dist.cluster.shared_paths import check_worker_paths, training_paths
from ganseg_dist.cluster.train import train_on_ray
from ganseg_dist.config import RunConfig, override
from ganseg_dist.config.operational import fixed_change
from ganseg_dist.data.cohort import Cohort, Split
from ganseg_dist.data.record import DataRecord
from ganseg_dist.engine.checkpoint import FolderCheckpoints, checkpoint_damage, read_position
from ganseg_dist.engine.tracker import Tracker
from ganseg_dist.engine.trainer import train_member
from ganseg_dist.engine.world import World
from ganseg_dist.errors import FederationError, TrainingDiverged
from ganseg_dist.evaluation.arms import ModelArm
from ganseg_dist.evaluation.segmentation import evaluate
from ganseg_dist.inference.predictor import Predictor
from ganseg_dist.planning.prepare import Prepared
from ganseg_dist.planning.request import TrainingRequest
from ganseg_dist.planning.run_folder import open_run
from ganseg_dist.runs import Run, named_run
from ganseg_dist.studies.sweeps.metric import Metric, scores_so_far
from ganseg_dist.studies.sweeps.privacy import with_sweep_noise
from ganseg_dist.studies.trial import TrialState
from ganseg_dist.systems import outline_system
from ganseg_dist.systems.base import Monitor, monitors_of
from ganseg_dist.tracking.mlflow_tracker import MLflowTracker
from ganseg_dist.tracking.tracked_run import TrackedRun
from ganseg_dist.training.run_training import only_trainer, run_training

STATES: Mapping[str, TrialState] = {TrainingDiverged.__name__: "diverged", FederationError.__name__: "abandoned"}
"""By the name of the error: with these errors a trial ends for good and is not run again."""

logger = logging.getLogger(__name__)

Monitors = Mapping[str, Monitor]
"""By stage, the monitor that chooses the epoch to keep."""


@dataclass(frozen=True, slots=True)
class TrialJob:
    """Inputs of a trial's process besides its values."""

    runs: Path
    sweep: str
    config: RunConfig
    """Resolved; each trial overrides the fields of the space."""
    data_record: DataRecord
    cohort: Cohort
    split: Split
    prepared: Prepared
    metrics: tuple[Metric, ...]
    request: TrainingRequest
    parent: TrackedRun
    trials: int
    """Number of trials in the sweep."""
    command: str
    """Command that a trial's run records, as the process has a command line of Ray's."""
    trainer: TrialTrainer

    def train(self, values: dict[str, Any]) -> None:
        """Train one trial. Checks the shared paths, as the node may have joined after the sweep checked the others."""
        os.environ["GANSEG_RUNS"] = str(self.runs)
        check_worker_paths(training_paths(named_run(self.sweep), self.prepared))
        self.trainer.train(values, self)

    def config_of(self, values: Mapping[str, Any]) -> RunConfig:
        """The config of a trial with these values, its share of the privacy budget included."""
        return with_sweep_noise(override(self.config, values), self.trials, len(self.split.train))

    def run_of(self, number: str) -> Run:
        """The run of the trial with this number."""
        return named_run(f"{self.sweep}.{number}")

    @property
    def tags(self) -> dict[str, str]:
        """MLflow tags that place the trial's run under the sweep's."""
        return {"ganseg.sweep": self.sweep, **self.parent.child_tags}

    def report_epoch(self, checkpoint: Path, config: RunConfig, monitors: Monitors, *, keep: bool) -> None:
        """Report the scores as of this checkpoint to Tune; nothing before the first epoch.

        Tune may resume from a checkpoint that it may `keep`, or give it to another trial.
        """
        from ray import tune

        history = read_position(checkpoint).history
        if history:
            scores = scores_so_far(history, self.metrics, monitors, config)
            tune.report(scores, checkpoint=tune.Checkpoint.from_directory(checkpoint) if keep else None)

    def report_end(self, run: Run, config: RunConfig, monitors: Monitors) -> None:
        """Report a finished run's scores to Tune, with the metrics of whole validation scans."""
        from ray import tune

        scores = scores_so_far(run.history(), self.metrics, monitors, config)
        scan_metrics = [metric for metric in self.metrics if not metric.every_epoch]
        if scan_metrics:
            cases = [case for case in self.cohort.of_patients(self.split.validation) if case.mask is not None]
            arm = ModelArm(run.name, "model", Predictor.load(run.model, "cuda" if self.request.gpus else "cpu"))
            rows = evaluate([arm], cases, "validation").rows[run.name]
            scores |= {
                metric.name: float(np.mean([metric.of_scan(row.scores) for row in rows])) for metric in scan_metrics
            }
        tune.report(scores)

    def report_without_score(self) -> None:
        """Report NaN for every metric, so that Tune ends the trial without a retry. The reason is in its run."""
        from ray import tune

        tune.report(dict.fromkeys((metric.name for metric in self.metrics), math.nan))


@dataclass(frozen=True, slots=True)
class Setup:
    """What a trainer makes of a sweep's data."""

    scored_by_epoch: bool = True
    """Whether trials have scores after every epoch, or of whole scans after the last alone."""
    warnings: tuple[str, ...] = ()


class TrialTrainer:
    """Trains a trial as `ganseg train` does: in its process, or on several workers."""

    def validate_setup(self, config: RunConfig, cohort: Cohort, split: Split) -> Setup:
        """What is known before any trial. Raises ConfigError or DataError for a setup that cannot be trained."""
        return Setup()

    def train(self, values: dict[str, Any], job: TrialJob) -> None:
        """Train with these values of the space's fields and report to Tune; runs in the trial's process.

        Resumes from Tune's checkpoint if there is one. An infinite loss ends the trial without a score.
        """
        from ray import tune

        started = time.monotonic()
        config = job.config_of(values)
        run = job.run_of(str(tune.get_context().get_trial_name()))
        monitors = monitors_of(outline_system(config))
        earlier = run.config() if (run.folder / "run.json").exists() else config
        if run.finished and fixed_change(earlier, config) is None:  # and killed before Tune recorded it
            job.report_end(run, config, monitors)
            return
        _restore_checkpoint(tune.get_checkpoint(), run)
        if earlier != config:  # PBT continues with other values
            write_text(run.folder / "config.json", config.to_json())
        request = job.request
        run, _ = open_run(
            run.name, config, job.data_record, job.cohort, split=job.split, request=request.to_record(),
            workers=request.workers, device="cuda" if request.gpus else "cpu", sweep=job.sweep,
            command=job.command,
        )  # fmt: skip

        def report(checkpoint: Path) -> None:
            job.report_epoch(checkpoint, config, monitors, keep=True)

        def train(tracked: TrackedRun) -> Path:
            train_trial = _train_on_workers if request.workers > 1 else _train_in_process
            return train_trial(run, config, job, tracked, report)

        with only_trainer(run):
            try:
                run_training(run, train, monitors=monitors, tags=job.tags, started=started)
            except TrainingDiverged:
                job.report_without_score()
                return
        if any(not metric.every_epoch for metric in job.metrics):
            job.report_end(run, config, monitors)


def _restore_checkpoint(checkpoint: Any, run: Run) -> None:
    """Replace the run's checkpoints by Tune's, which may be another trial's, or an earlier one of this trial."""
    shutil.rmtree(run.checkpoints, ignore_errors=True)
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            damage = checkpoint_damage(Path(folder))
            if damage is None:
                FolderCheckpoints(run.checkpoints).save({}, partial(copy_files, Path(folder)))
            else:
                logger.warning("%s; the trial %s is trained from its start", damage, run.name)


def _train_in_process(
    run: Run, config: RunConfig, job: TrialJob, tracked: TrackedRun, report: Callable[[Path], None]
) -> Path:
    checkpoints = ReportedCheckpoints(run.checkpoints, report)
    world = World(device=torch.device("cuda" if job.request.gpus else "cpu"))
    with closing(MLflowTracker.of(tracked, job.request.convention)) as tracker:
        train_member(config, job.prepared.open(config), world, tracker, checkpoints)
    return checkpoints.last()


def _train_on_workers(
    run: Run, config: RunConfig, job: TrialJob, tracked: TrackedRun, report: Callable[[Path], None]
) -> Path:
    reports = ReportedEpochs(FolderCheckpoints(run.checkpoints), report)
    worker_tracker = partial(MLflowTracker.of, tracked, job.request.convention)
    last = train_on_ray(run, config, job.prepared, job.request, tracker=reports, worker_tracker=worker_tracker)
    reports.report_newest()
    return last


class ReportedCheckpoints(FolderCheckpoints):
    """Reports each epoch's checkpoint once it is written, but not a stage's last one, which comes without scores."""

    def __init__(self, folder: Path, report: Callable[[Path], None]) -> None:
        super().__init__(folder)
        self.report = report

    def save(self, scores: Mapping[str, float], write: Callable[[Path], None]) -> None:
        """Write, then report."""
        super().save(scores, write)
        if scores:
            self.report(self.last())


class ReportedEpochs(Tracker):
    """Reports the newest checkpoint that workers in other processes have written when the driver receives an epoch."""

    def __init__(self, checkpoints: FolderCheckpoints, report: Callable[[Path], None]) -> None:
        self.checkpoints, self.report = checkpoints, report
        self.reported: str | None = None

    def epoch(self, step: int, scores: Mapping[str, float]) -> None:
        """Report the newest checkpoint, which may be of the epoch before."""
        self.report_newest()

    def report_newest(self) -> None:
        """Report the newest checkpoint once per step, as a copy: workers delete older ones meanwhile."""
        newest = self.checkpoints.newest()
        step = None if newest is None else newest.name.partition("-stage-")[0]
        if newest is None or step == self.reported:
            return
        with tempfile.TemporaryDirectory(prefix="ganseg-") as copy:
            try:
                copy_files(newest, Path(copy))
            except FileNotFoundError:  # a worker deleted it just now, so a newer one exists
                self.report_newest()
                return
            self.report(Path(copy))
        self.reported = step

"""Run a sweep: trials that differ in the fields of a space, on Ray Tune.

A sweep's folder has beside study.json and trials/:

runs/SWEEP/tune/        Ray Tune's state, from which a killed sweep resumes
runs/SWEEP/best.json    the best trial's values
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from ganseg_dist.cluster.ray_cluster import check_resources, cluster_resources, map_on_cluster
from ganseg_dist.cluster.shared_paths import check_shared_paths, cluster_with_shared_paths, training_paths
from ganseg_dist.cluster.tune import EPOCH, TunePlan, TuneResult
from ganseg_dist.config import RunConfig
from ganseg_dist.data.checks.finding import Finding
from ganseg_dist.data.cohort import Split, split_as_configured
from ganseg_dist.data.readers import read_cohort
from ganseg_dist.engine.checkpoint import FolderCheckpoints
from ganseg_dist.errors import DataError
from ganseg_dist.planning.data_checks import UNSCORABLE
from ganseg_dist.planning.mapper import Bar, no_bar
from ganseg_dist.planning.plan import check_plan, plan_training
from ganseg_dist.planning.preflight import labelled
from ganseg_dist.planning.prepare import check_slices, prepare_plan
from ganseg_dist.planning.resolve import resolve
from ganseg_dist.planning.run_folder import command_line
from ganseg_dist.runs import SWEEP, Run, check_room_for_trials, named_run, runs_root
from ganseg_dist.storage.sync import syncing
from ganseg_dist.studies.study import Study
from ganseg_dist.studies.sweeps.metric import Metric, metrics_of
from ganseg_dist.studies.sweeps.privacy import with_sweep_noise
from ganseg_dist.studies.sweeps.request import SweepRequest, describe_request, validate_search
from ganseg_dist.studies.sweeps.search import Watch, mark_interrupted_trials, search
from ganseg_dist.studies.sweeps.sweep import Sweep
from ganseg_dist.studies.sweeps.trainers import STATES, TrialJob, TrialTrainer
from ganseg_dist.studies.trial import TrialResult, TrialState
from ganseg_dist.systems import outline_system
from ganseg_dist.tracking.description import data_tags
from ganseg_dist.tracking.tracked_run import TrackedRun, open_parent
from ganseg_dist.training.run_training import epochs_kept, only_trainer


def run_sweep(
    request: SweepRequest,
    *,
    trainer: TrialTrainer | None = None,
    watch: Watch = lambda trial, done: None,
    bar: Bar = no_bar,
    warn: Callable[[str], object] = lambda warning: None,
) -> tuple[Sweep, TrackedRun]:
    """Run every trial to its end; an interrupted sweep resumes. Returns the sweep and its parent run in MLflow.

    Trials that failed are run again too.

    Args:
        trainer: trains the trials; None trains each without a federation.
        warn: called with each one-line warning about the data that does not stop the sweep.

    Raises RunError when the name belongs to another study, or the first trials all fail with the same error.
    """
    trainer = trainer or TrialTrainer()
    training = replace(request.training, data=request.training.data.absolute())  # trials have other working folders
    request = replace(request, training=training)
    sweep_run = named_run(request.name)
    check_room_for_trials(sweep_run, request.trials)
    first = request.space.first(training.config, request.fixed)
    metrics, split = _metrics_and_split(request, trainer, warn)
    with ExitStack() as stack:
        stack.enter_context(mark_interrupted_trials(sweep_run))
        with bar("Starting Ray"):
            stack.enter_context(cluster_with_shared_paths(training.data, dashboard=True))
        plan = plan_training(training, mapper=map_on_cluster, bar=bar)
        study = Study.of_request(sweep_run, describe_request(request, plan, split, metrics, first))
        remaining = study.remaining()
        if remaining:
            check_resources(workers=training.workers, threads=plan.config.train.threads, gpus=training.gpus)
            _raise_unscorable(plan.split_findings(split))
            warned = check_plan(plan, training, {"": split}, warn)
            prepared = prepare_plan(plan, split, map_on_cluster, bar)
            _raise_unscorable(check_slices(plan, prepared, warned, lambda warning: None))
        study.begin()  # after the checks: a rejected sweep must not reserve its name
        stack.enter_context(only_trainer(sweep_run))
        parent = open_parent(sweep_run.folder, SWEEP, _common_params(study.request), data_tags(plan.data_record))
        if not remaining:
            return Sweep.of(study), parent
        job = TrialJob(
            runs_root(), sweep_run.name, plan.config, plan.data_record, plan.cohort, split, prepared, metrics,
            training, parent, request.trials, command_line(), trainer,
        )  # fmt: skip
        check_shared_paths(training_paths(sweep_run, prepared), {"CPU": plan.config.train.threads})
        with syncing(sweep_run.folder, lambda: _tune_state(sweep_run.folder / "tune")):
            tune_plan = _tune_plan(request, plan.config, metrics, first)
            return search(study, tune_plan, job.train, lambda trial: _trial_result(trial, job), watch), parent


def _metrics_and_split(
    request: SweepRequest, trainer: TrialTrainer, warn: Callable[[str], object]
) -> tuple[tuple[Metric, ...], Split]:
    """Metrics of the trials and the split, after all checks that can fail before Ray starts."""
    training = request.training
    cohort = labelled(read_cohort(training.data, training.layout, training.labels), training.config)
    config = resolve(training.config, cohort)
    split = split_as_configured(cohort, config)
    setup = trainer.validate_setup(config, cohort, split)
    metrics = metrics_of(request.metrics, config, scored_by_epoch=setup.scored_by_epoch)
    validate_search(request, metrics, config)
    for warning in setup.warnings:
        warn(warning)
    with_sweep_noise(config, request.trials, len(split.train))
    return metrics, split


def _raise_unscorable(findings: Iterable[Finding]) -> None:
    """Raises DataError where the validation patients can score no trial."""
    for finding in findings:
        if finding.check == UNSCORABLE:
            raise DataError(finding.message)


def _tune_state(folder: Path) -> list[Any]:
    """A value that changes with every checkpoint of a trial and every write of Tune's state."""
    notes = [(file.name, file.stat().st_mtime_ns) for file in sorted(folder.glob("*.json"))]
    return [*notes, *sorted(folder.glob("*/checkpoint_*"))]


def _common_params(description: Mapping[str, Any]) -> dict[str, str]:
    """Parameters of the sweep's parent run in MLflow, which all trials share."""
    return {
        "recipe": description["config"]["recipe"],
        "seed": str(description["config"]["seed"]),
        "metric": ", ".join(metric["name"] for metric in description["metrics"]),
        **{name: str(description[name]) for name in ("space", "trials", "scheduler", "search")},
    }


def _tune_plan(
    request: SweepRequest, config: RunConfig, metrics: Sequence[Metric], first: Mapping[str, Any]
) -> TunePlan:
    threads, workers = config.train.threads, request.training.workers
    several_workers = workers > 1  # they hold the CPUs and GPUs; the trial's process only waits
    return TunePlan(
        sample=request.space.bind(config, request.fixed),
        first_values=(first,),
        distributions=request.space.distributions(config, request.fixed),
        trials=request.trials,
        scheduler=request.scheduler,
        search=request.search,
        metrics={metric.name: metric.mode for metric in metrics},
        epochs=outline_system(config).stages[-1].epochs,
        seed=config.seed,
        cpus=0.0 if several_workers else threads,
        gpus=request.gpu_share if request.training.gpus and not several_workers else 0.0,
        max_concurrent=_concurrent_trials(workers, threads, gpus=request.training.gpus) if several_workers else None,
    )


def _concurrent_trials(workers: int, threads: int, *, gpus: bool) -> int:
    """Number of multi-worker trials that fit into the cluster at once; more would deadlock."""
    total = cluster_resources()
    room = total.get("CPU", 0) // (workers * threads)
    if gpus:
        room = min(room, total.get("GPU", 0) // workers)
    return max(1, int(room))


def _trial_result(trial: TuneResult, job: TrialJob) -> TrialResult:
    run = job.run_of(trial.number)
    started = (run.folder / "run.json").exists()
    error = run.description().error if started else None
    state: TrialState = "finished"
    reason = ""
    kind, _, message = str(error).partition(": ")
    if kind in STATES:
        state, reason = STATES[kind], message
    elif trial.failed:
        state, reason = "failed", error or trial.reason
    elif not (started and run.finished):
        state, reason = "stopped", "the scheduler stopped it; other trials scored better"
    scores = {metric.name: float(trial.scores.get(metric.name, math.nan)) for metric in job.metrics}
    curve, kept = _curve(run, job)
    return TrialResult(
        run.name,
        dict(trial.values),
        float(trial.scores.get("time_total_s", 0.0)),
        scores={name: value for name, value in scores.items() if math.isfinite(value)},
        state=state,
        reason=reason,
        epochs=int(trial.scores.get(EPOCH, 0)),
        curve=curve,
        kept=kept,
    )


def _curve(run: Run, job: TrialJob) -> tuple[tuple[tuple[int, float], ...], int | None]:
    """(epoch, first metric) over the last stage, epochs counted from 1, and the epoch that is kept."""
    history = FolderCheckpoints(run.checkpoints).history()
    if not history:
        return (), None
    config = run.config()
    last = outline_system(config).stages[-1]
    of_last = [record for record in history if record.stage == last.name]
    if not of_last:
        return (), None
    first = job.metrics[0].score
    curve = tuple((record.epoch + 1, record.scores[first]) for record in of_last if first in record.scores)
    return curve, epochs_kept(history, {last.name: last.monitor}, config)[last.name].epoch + 1

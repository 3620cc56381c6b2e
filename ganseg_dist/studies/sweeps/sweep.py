"""A sweep: trials that differ in the fields of a space, and the scores of each.

runs/SWEEP/sweep.json     the request: the config, the space, the metrics, the split
runs/SWEEP/tune/          Ray Tune's own state, from which a killed sweep resumes
runs/SWEEP/trials.json    each trial's values, scores, epochs and ending
runs/SWEEP/best.json      the best trial's values
runs/SWEEP.003/           a trial's own run, like any other
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ganseg_dist.cluster.ray_cluster import check_resources, cluster_resources, map_on_cluster
from ganseg_dist.cluster.shared_paths import check_shared_paths, cluster_with_shared_paths, training_paths
from ganseg_dist.cluster.tune import EPOCH, Scheduler, Search, TrialResult, TunePlan, population, run_trials
from ganseg_dist.config import RunConfig
from ganseg_dist.data.cohort import Split, split_as_configured
from ganseg_dist.data.preflight import Finding
from ganseg_dist.data.readers import read_cohort
from ganseg_dist.engine.checkpoint import FolderCheckpoints
from ganseg_dist.errors import ConfigError, DataError, RunError
from ganseg_dist.federation.privacy import withholds_scores
from ganseg_dist.planning.data_checks import UNSCORABLE
from ganseg_dist.planning.plan import Plan as TrainingPlan
from ganseg_dist.planning.plan import check_plan, plan_training
from ganseg_dist.planning.preflight import labelled
from ganseg_dist.planning.prepare import check_slices, prepare_plan
from ganseg_dist.planning.request import TrainingRequest
from ganseg_dist.planning.resolve import resolve
from ganseg_dist.planning.run_folder import command_line
from ganseg_dist.progress import Bar, no_bar
from ganseg_dist.runs import Run, check_room_for_trials, named_run, runs_root
from ganseg_dist.storage.sync import syncing
from ganseg_dist.studies.sweeps.metric import Metric, metrics_of
from ganseg_dist.studies.sweeps.privacy import describe_budget, with_sweep_noise
from ganseg_dist.studies.sweeps.record import Ending, Sweep, TrialRecord, begin_sweep, check_same_study, write_trials
from ganseg_dist.studies.sweeps.space import Space
from ganseg_dist.studies.sweeps.trial import ENDS, PlainTrainer, Trainer, TrialJob
from ganseg_dist.systems import build_system
from ganseg_dist.tracking.contents import data_tags
from ganseg_dist.tracking.results import log_trial, tracked
from ganseg_dist.tracking.tracked_run import TrackedRun, open_parent
from ganseg_dist.training.run_training import epochs_kept, only_trainer

SAME_ERRORS = 3
"""Number of first trials that must all fail with one error for the sweep to be abandoned."""


@dataclass(frozen=True, slots=True)
class Hospitals:
    """The hospitals of a simulated federation, as in the options of `ganseg federate`."""

    sites: str
    skew: str | None = None


@dataclass(frozen=True, slots=True)
class SweepRequest:
    """The arguments of a sweep."""

    training: TrainingRequest
    """The recipe, the data, and the workers and GPUs of a trial."""
    space: Space
    trials: int
    scheduler: Scheduler = "asha"
    search: Search = "optuna"
    metrics: tuple[str, ...] = ()
    gpu_share: float = 1.0
    """Share of a GPU for a trial of one worker."""
    hospitals: Hospitals | None = None
    """Hospitals that train each trial as a federation; None trains it on all data in one place."""
    fixed: tuple[str, ...] = ()
    """Fields of the space that are not searched and stay at the config's values."""


def sweep(
    request: SweepRequest,
    *,
    trainer: Trainer | None = None,
    watch: Callable[[TrialRecord, int], None] = lambda trial, done: None,
    bar: Bar = no_bar,
    warn: Callable[[str], object] = lambda warning: None,
) -> tuple[Sweep, TrackedRun]:
    """Run every trial to its end; an interrupted sweep resumes. Returns the sweep and its parent run in MLflow.

    Trials that failed are run again too.

    Args:
        trainer: trains the trials; None trains each without a federation.
        watch: called with each trial that ends and the number that have ended.
        warn: called with each one-line warning about the data that does not stop the sweep.

    Raises RunError when the name belongs to another sweep, or the first trials all fail with the same error.
    """
    trainer = trainer or PlainTrainer()
    training = replace(request.training, data=request.training.data.absolute())  # trials have other working folders
    request = replace(request, training=training)
    sweep_run = named_run(training.name())
    check_room_for_trials(sweep_run, request.trials)
    first = request.space.first(training.config, request.fixed)
    metrics, split = _metrics_and_split(request, trainer)
    with ExitStack() as stack:
        stack.enter_context(_mark_interrupted_trials(sweep_run))
        with bar("Starting Ray"):
            stack.enter_context(cluster_with_shared_paths(training.data, dashboard=True))
        plan = plan_training(training, mapper=map_on_cluster, bar=bar)
        description = _describe_sweep(request, plan, split, metrics, first)
        check_same_study(sweep_run, description)
        ended = (sweep_run.folder / "trials.json").exists() and not Sweep.of(sweep_run).failed_trials
        if not ended:
            check_resources(workers=training.workers, threads=plan.config.train.threads, gpus=training.gpus)
            _raise_unscorable(plan.split_findings(split))
            warned = check_plan(plan, training, {"": split}, warn)
            prepared = prepare_plan(plan, split, map_on_cluster, bar)
            _raise_unscorable(check_slices(plan, prepared, warned, lambda warning: None))
        begin_sweep(sweep_run, description)  # after the checks: a refused sweep must not reserve its name
        stack.enter_context(only_trainer(sweep_run))
        parent = open_parent(sweep_run.folder, "sweep", _common_params(description), data_tags(plan.data_record))
        if ended:
            return Sweep.of(sweep_run), parent
        job = TrialJob(
            runs_root(), sweep_run.name, plan.config, plan.data_record, plan.cohort, split, prepared, metrics,
            training, parent, request.trials, command_line(), trainer,
        )  # fmt: skip
        records: list[TrialRecord] = []

        def on_trial_end(end: TrialResult) -> None:
            records.append(_trial_record(end, job))
            _log_to_mlflow(records[-1])
            watch(records[-1], len(records))
            check_failures(sweep_run.name, records)

        check_shared_paths(training_paths(sweep_run, prepared), {"CPU": plan.config.train.threads})
        with syncing(sweep_run.folder, lambda: _tune_state(sweep_run.folder / "tune")):
            ends = run_trials(
                _tune_plan(request, plan.config, metrics, first), job.train, sweep_run.folder, on_trial_end
            )
    trials = tuple(_mark_if_stopped(_trial_record(end, job)) for end in sorted(ends, key=lambda end: end.number))
    write_trials(sweep_run, trials)
    return Sweep(sweep_run, request.space.name, metrics, trials), parent


def _metrics_and_split(request: SweepRequest, trainer: Trainer) -> tuple[tuple[Metric, ...], Split]:
    """Metrics of the trials and the split, after all checks that can fail before Ray starts."""
    training = request.training
    cohort = labelled(read_cohort(training.data, training.layout, training.labels), training.config)
    config = resolve(training.config, cohort)
    scored_by_epoch = request.hospitals is None or not withholds_scores(config)
    metrics = metrics_of(request.metrics, config, scored_by_epoch=scored_by_epoch)
    validate_search(request, metrics, config)
    split = split_as_configured(cohort, config)
    trainer.validate_setup(config, cohort, split)
    with_sweep_noise(config, request.trials, len(split.train))
    return metrics, split


def _raise_unscorable(findings: Iterable[Finding]) -> None:
    """Raises DataError where the validation patients can score no trial."""
    for finding in findings:
        if finding.check == UNSCORABLE:
            raise DataError(finding.message)


@contextmanager
def _mark_interrupted_trials(sweep_run: Run) -> Iterator[None]:
    """Mark running trials as interrupted when the sweep ends early: their processes are killed before they can.

    Leaves them alone where another process runs this sweep: its trials are still being trained.
    """
    try:
        yield
    except BaseException:
        if (sweep_run.folder / "sweep.json").exists():
            with suppress(RunError), only_trainer(sweep_run):
                for trial in _open_trials(sweep_run):
                    _record_ending(trial, "interrupted")
        raise


def _open_trials(sweep_run: Run) -> Iterator[Run]:
    """Runs of its trials whose recorded status is started or training."""
    for folder in sorted(sweep_run.folder.parent.glob(f"{sweep_run.name}.[0-9]*")):
        description = Run(folder).description() if (folder / "run.json").exists() else {}
        if description.get("sweep") == sweep_run.name and description.get("status") in ("started", "training"):
            yield Run(folder)


def check_failures(name: str, ended: Sequence[TrialRecord]) -> None:
    """Raises RunError when the first trials all ended by one error, as the others would too."""
    reasons = {trial.reason.replace(trial.name, "a trial") for trial in ended}
    if len(ended) == SAME_ERRORS and len(reasons) == 1 and all(trial.ending == "failed" for trial in ended):
        raise RunError(
            f"{name}: {SAME_ERRORS} trials, one after the other, ended by the same error: {ended[0].reason}; mend it, "
            f"and go on with: ganseg tune --resume {name}"
        )


def _tune_state(folder: Path) -> list[Any]:
    """A value that changes with every checkpoint of a trial and every write of Tune's own state."""
    notes = [(file.name, file.stat().st_mtime_ns) for file in sorted(folder.glob("*.json"))]
    return [*notes, *sorted(folder.glob("*/checkpoint_*"))]


def resumed_sweep(name: str, spaces: Mapping[str, Space]) -> SweepRequest:
    """The stored request of the sweep to resume. Raises RunError when there is none of this name."""
    sweep_run = named_run(name)
    description = sweep_run.read("sweep.json")
    try:
        request = description["request"]
        training = TrainingRequest(
            RunConfig.from_json(json.dumps(description["config"]), str(sweep_run.folder / "sweep.json")),
            Path(request["data"]), request["layout"], run_name=name, workers=request["workers"], gpus=request["gpus"],
            labels=request["labels"],
        )  # fmt: skip
        metrics = tuple(metric["name"] for metric in description["metrics"])
        hospitals = None if description["hospitals"] is None else Hospitals(**description["hospitals"])
        return SweepRequest(
            training, spaces[description["space"]], description["trials"], description["scheduler"],
            description["search"], metrics, description["gpu_share"], hospitals, tuple(description["fixed"]),
        )  # fmt: skip
    except (KeyError, TypeError):
        raise RunError(
            f"{sweep_run.folder / 'sweep.json'}: does not say what was asked for; start the sweep's command again"
        ) from None


def validate_search(request: SweepRequest, metrics: Sequence[Metric], config: RunConfig) -> None:
    """Raises ConfigError for a combination that the scheduler or the search does not support."""
    if request.hospitals is not None and (request.scheduler == "pbt" or request.training.workers > 1):
        raise ConfigError("--sites: trains a trial in its own process, round by round; leave out --workers and pbt")
    if request.hospitals is not None and config.train.privacy.on and config.train.privacy.noise_multiplier is None:
        raise ConfigError(
            "train.privacy.epsilon: every site would need noise of its own for all trials; give "
            "train.privacy.noise_multiplier in a sweep of federations"
        )
    if request.scheduler == "pbt" and withholds_scores(config):
        raise ConfigError("--scheduler pbt: trains epochs again, which no privacy budget counts; take asha or none")
    if request.scheduler != "none" and len(metrics) > 1:
        raise ConfigError(
            f"--scheduler {request.scheduler}: compares trials in training by one metric; give one, or --scheduler none"
        )
    if request.scheduler != "none" and not metrics[0].every_epoch:
        raise ConfigError(
            f"--scheduler {request.scheduler}: compares trials in training by what every epoch scores, and "
            f"{metrics[0].name} is of whole scans, after the last; give --scheduler none"
        )
    if request.scheduler == "pbt" and not population(request.space.distributions(config, request.fixed)):
        raise ConfigError(
            f"--scheduler pbt: changes numbers, and --space {request.space.name} searches none; take asha or none"
        )
    if request.scheduler == "pbt" and request.training.workers > 1:
        raise ConfigError("--scheduler pbt: moves weights between trials of one worker; leave out --workers")


def _describe_sweep(
    request: SweepRequest, plan: TrainingPlan, split: Split, metrics: Sequence[Metric], first: Mapping[str, Any]
) -> dict[str, Any]:
    """Contents of sweep.json."""
    return {
        "config": plan.config.model_dump(mode="json"),
        "space": request.space.name,
        "first": dict(first),
        "trials": request.trials,
        "scheduler": request.scheduler,
        "search": request.search,
        "gpu_share": request.gpu_share,
        "fixed": {name: plan.config.flat()[name] for name in sorted(request.fixed)},
        "hospitals": None if request.hospitals is None else asdict(request.hospitals),
        "metrics": [asdict(metric) for metric in metrics],
        "split": split.to_dict(),
        "request": request.training.to_dict(),
        "phantom": plan.cohort.phantom,
        "privacy": describe_budget(plan.config, request.trials, hospitals=request.hospitals is not None),
    }


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
    several_workers = workers > 1  # they hold the CPUs and GPUs; the trial's own process only waits
    return TunePlan(
        sample=request.space.bind(config, request.fixed),
        first_values=(first,),
        distributions=request.space.distributions(config, request.fixed),
        trials=request.trials,
        scheduler=request.scheduler,
        search=request.search,
        metrics={metric.name: metric.mode for metric in metrics},
        epochs=build_system(config).stages[-1].epochs,
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


def _trial_record(end: TrialResult, job: TrialJob) -> TrialRecord:
    run = job.run_of(end.number)
    started = (run.folder / "run.json").exists()
    description = run.description() if started else {}
    ending: Ending = "finished"
    reason = ""
    kind, _, message = str(description.get("error")).partition(": ")
    if kind in ENDS:
        ending, reason = ENDS[kind], message
    elif end.failed:
        ending, reason = "failed", str(description.get("error") or end.reason)
    elif not (started and run.finished):
        ending, reason = "stopped", "others were ahead of it"
    return TrialRecord(
        run.name,
        dict(end.values),
        {name: value for name, value in _reported_scores(end, job) if math.isfinite(value)},
        int(end.scores.get(EPOCH, 0)),
        ending,
        reason,
        float(end.scores.get("time_total_s", 0.0)),
        *_curve(run, job),
    )


def _reported_scores(end: TrialResult, job: TrialJob) -> Iterator[tuple[str, float]]:
    return ((metric.name, float(end.scores.get(metric.name, math.nan))) for metric in job.metrics)


def _curve(run: Run, job: TrialJob) -> tuple[tuple[tuple[int, float], ...], int | None]:
    """(epoch, first metric) over the last stage, epochs counted from 1, and the epoch that is kept."""
    history = FolderCheckpoints(run.checkpoints).history()
    if not history:
        return (), None
    config = run.config()
    last = build_system(config).stages[-1]
    of_last = [record for record in history if record["stage"] == last.name]
    if not of_last:
        return (), None
    first = job.metrics[0].score
    curve = tuple((record["epoch"] + 1, record["scores"][first]) for record in of_last if first in record["scores"])
    return curve, epochs_kept(history, {last.name: last.monitor}, config)[last.name]["epoch"] + 1


def _mark_if_stopped(trial: TrialRecord) -> TrialRecord:
    """Record the ending of a trial that the scheduler stopped, whose process could not do so."""
    run = named_run(trial.name)
    if trial.ending == "stopped" and (run.folder / "run.json").exists():
        _record_ending(run, "stopped")
    return trial


def _log_to_mlflow(trial: TrialRecord) -> None:
    """Log the trial's scores, ending and reason to MLflow."""
    run = named_run(trial.name)
    if (run.folder / "run.json").exists():
        # An error message may hold paths and patients, which must not reach a server.
        reason = trial.reason if trial.ending in ("stopped", "diverged") else ""
        tags = {"ganseg.ending": trial.ending, "ganseg.reason": reason}
        log_trial(tracked(run), trial.scores, tags)


def _record_ending(trial: Run, status: str) -> None:
    """Write a trial's final status to its folder and to MLflow, in place of its own process."""
    trial.describe(status=status, error=None)
    tracked(trial).end("KILLED")

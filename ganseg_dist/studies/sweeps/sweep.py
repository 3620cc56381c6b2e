"""A sweep: trials that differ in the fields of a space, and what each came to.

runs/SWEEP/sweep.json     what was asked: the config, the space, the metrics, the split
runs/SWEEP/tune/          Ray Tune's own state, from which a killed sweep goes on
runs/SWEEP/trials.json    each trial's values, scores, epochs and how it ended
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
from ganseg_dist.cluster.shared_paths import check_shared_paths, cluster_seeing, training_places
from ganseg_dist.cluster.tune import EPOCH, Plan, Scheduler, Search, TrialEnd, population, run_trials
from ganseg_dist.config import RunConfig
from ganseg_dist.data.cohort import Split, split_as_configured
from ganseg_dist.data.preflight import Finding
from ganseg_dist.data.readers import read_cohort
from ganseg_dist.engine.checkpoint import FolderCheckpoints
from ganseg_dist.errors import ConfigError, DataError, RunError
from ganseg_dist.federation.privacy import keeps_numbers_home
from ganseg_dist.planning.data_checks import UNSCORABLE
from ganseg_dist.planning.plan import command_line
from ganseg_dist.planning.prepare import labelled
from ganseg_dist.planning.resolve import resolve
from ganseg_dist.runs import Run, check_room_for_trials, named_run, runs_root
from ganseg_dist.storage.sync import syncing
from ganseg_dist.studies.sweeps.metric import Metric, metrics_of
from ganseg_dist.studies.sweeps.privacy import budget_told, charged
from ganseg_dist.studies.sweeps.record import Ending, Sweep, TrialRecord, begin_sweep, check_same_study, write_trials
from ganseg_dist.studies.sweeps.space import Space
from ganseg_dist.studies.sweeps.trial import ENDS, Trainer, TrainsAlone, TrialJob
from ganseg_dist.systems import build_system
from ganseg_dist.tracking.contents import data_tags
from ganseg_dist.tracking.results import log_trial, tracked
from ganseg_dist.tracking.tracked_run import TrackedRun, open_parent
from ganseg_dist.training.run_training import epochs_kept, only_trainer
from ganseg_dist.training.session import (
    Bar,
    TrainingRequest,
    check_plan,
    check_slices,
    no_bar,
    plan_training,
    prepare_plan,
)
from ganseg_dist.training.session import Plan as TrainingPlan

ALIKE = 3
"""Trials that end by one error, none having ended otherwise, by which it is known that all would."""


@dataclass(frozen=True, slots=True)
class Hospitals:
    """The hospitals of a simulated federation, as `ganseg federate` is told them."""

    sites: str
    skew: str | None = None


@dataclass(frozen=True, slots=True)
class SweepRequest:
    """What a person asks for."""

    training: TrainingRequest
    """The recipe, the data, and what a trial gets."""
    space: Space
    trials: int
    scheduler: Scheduler = "asha"
    search: Search = "optuna"
    metrics: tuple[str, ...] = ()
    gpu_share: float = 1.0
    """Of a GPU, for a trial of one worker."""
    hospitals: Hospitals | None = None
    """That train each trial together; none: it is trained on all data in one place."""
    fixed: tuple[str, ...] = ()
    """Fields of the space that are not searched, but stay at the config's values."""


def sweep(
    asked: SweepRequest,
    *,
    trainer: Trainer | None = None,
    watch: Callable[[TrialRecord, int], None] = lambda trial, done: None,
    bar: Bar = no_bar,
    warn: Callable[[str], object] = lambda warning: None,
) -> tuple[Sweep, TrackedRun]:
    """Every trial to its end; interrupted and called again, it goes on. With it, the sweep's place in MLflow.

    Trials that ended by an error are tried again too.

    Args:
        trainer: of the trials; none: each alone.
        watch: told each trial that ends, and how many have.
        warn: called with what does not stop the sweep but should be known of its data, in one line each.

    Raises RunError when the name stands for another sweep, or the first trials all end by the same error.
    """
    trainer = trainer or TrainsAlone()
    training = replace(asked.training, data=asked.training.data.absolute())  # trials work in folders of their own
    asked = replace(asked, training=training)
    found = named_run(training.name())
    check_room_for_trials(found, asked.trials)
    first = asked.space.first(training.config, asked.fixed)
    metrics, split = _settled(asked, trainer)
    with ExitStack() as stack:
        stack.enter_context(_open_trials_told(found))
        with bar("Starting Ray"):
            stack.enter_context(cluster_seeing(training.data, dashboard=True))
        plan = plan_training(training, mapper=map_on_cluster, bar=bar)
        said = _said(asked, plan, split, metrics, first)
        check_same_study(found, said)
        ended = (found.folder / "trials.json").exists() and not Sweep.of(found).to_try_again
        if not ended:
            check_resources(workers=training.workers, threads=plan.config.train.threads, gpus=training.gpus)
            _raise_unscorable(plan.split_findings(split))
            warned = check_plan(plan, training, {"": split}, warn)
            prepared = prepare_plan(plan, split, map_on_cluster, bar)
            _raise_unscorable(check_slices(plan, prepared, warned, lambda warning: None))
        begin_sweep(found, said)  # what cannot be searched uses up no name
        stack.enter_context(only_trainer(found))
        parent = open_parent(found.folder, "sweep", _told_in_common(said), data_tags(plan.fingerprint))
        if ended:
            return Sweep.of(found), parent
        job = TrialJob(
            runs_root(), found.name, plan.config, plan.fingerprint, plan.cohort, split, prepared, metrics,
            training, parent, asked.trials, command_line(), trainer,
        )  # fmt: skip
        records: list[TrialRecord] = []

        def told(end: TrialEnd) -> None:
            records.append(_record(end, job))
            _track(records[-1])
            watch(records[-1], len(records))
            check_failures(found.name, records)

        check_shared_paths(training_places(found, prepared), {"CPU": plan.config.train.threads})
        with syncing(found.folder, lambda: _tune_state(found.folder / "tune")):
            ends = run_trials(_tune_plan(asked, plan.config, metrics, first), job.train, found.folder, told)
    trials = tuple(_closed(_record(end, job)) for end in sorted(ends, key=lambda end: end.number))
    write_trials(found, trials)
    return Sweep(found, asked.space.name, metrics, trials), parent


def _settled(asked: SweepRequest, trainer: Trainer) -> tuple[tuple[Metric, ...], Split]:
    """What trials are scored by, and the patients by part: all that can be refused before Ray is waited for."""
    training = asked.training
    cohort = labelled(read_cohort(training.data, training.layout, training.labels), training.config)
    config = resolve(training.config, cohort)
    told_by_epoch = asked.hospitals is None or not keeps_numbers_home(config)
    metrics = metrics_of(asked.metrics, config, told_by_epoch=told_by_epoch)
    validate_search(asked, metrics, config)
    split = split_as_configured(cohort, config)
    trainer.validate_setup(config, cohort, split)
    charged(config, asked.trials, len(split.train))
    return metrics, split


def _raise_unscorable(findings: Iterable[Finding]) -> None:
    """Raises DataError where no trial could be told from another."""
    for finding in findings:
        if finding.check == UNSCORABLE:
            raise DataError(finding.message)


@contextmanager
def _open_trials_told(found: Run) -> Iterator[None]:
    """A sweep that is interrupted has trials whose processes were ended before they could say so.

    Not where it is refused because another process makes it: those trials go on.
    """
    try:
        yield
    except BaseException:
        if (found.folder / "sweep.json").exists():
            with suppress(RunError), only_trainer(found):
                for trial in _open_trials(found):
                    _told_in_its_place(trial, "interrupted")
        raise


def _open_trials(found: Run) -> Iterator[Run]:
    """Its trials' runs that say they are being trained."""
    for folder in sorted(found.folder.parent.glob(f"{found.name}.[0-9]*")):
        said = Run(folder).description() if (folder / "run.json").exists() else {}
        if said.get("sweep") == found.name and said.get("status") in ("started", "training"):
            yield Run(folder)


def check_failures(name: str, ended: Sequence[TrialRecord]) -> None:
    """Raises RunError when the first trials all ended by one error: so would the others."""
    reasons = {trial.reason.replace(trial.name, "a trial") for trial in ended}
    if len(ended) == ALIKE and len(reasons) == 1 and all(trial.ending == "failed" for trial in ended):
        raise RunError(
            f"{name}: {ALIKE} trials, one after the other, ended by the same error: {ended[0].reason}; mend it, and go "
            f"on with: ganseg tune --resume {name}"
        )


def _tune_state(folder: Path) -> list[Any]:
    """What changes with every checkpoint of a trial, and whenever Tune notes how the trials stand."""
    notes = [(file.name, file.stat().st_mtime_ns) for file in sorted(folder.glob("*.json"))]
    return [*notes, *sorted(folder.glob("*/checkpoint_*"))]


def resumed_sweep(name: str, spaces: Mapping[str, Space]) -> SweepRequest:
    """The request of a sweep to go on with. Raises RunError when there is none of this name."""
    found = named_run(name)
    said = found.read("sweep.json")
    try:
        request = said["request"]
        training = TrainingRequest(
            RunConfig.from_json(json.dumps(said["config"]), str(found.folder / "sweep.json")),
            Path(request["data"]), request["layout"], run_name=name, workers=request["workers"], gpus=request["gpus"],
            labels=request["labels"],
        )  # fmt: skip
        metrics = tuple(metric["name"] for metric in said["metrics"])
        hospitals = None if said["hospitals"] is None else Hospitals(**said["hospitals"])
        return SweepRequest(
            training, spaces[said["space"]], said["trials"], said["scheduler"], said["search"], metrics,
            said["gpu_share"], hospitals, tuple(said["fixed"]),
        )  # fmt: skip
    except (KeyError, TypeError):
        raise RunError(
            f"{found.folder / 'sweep.json'}: does not say what was asked for; start the sweep's command again"
        ) from None


def validate_search(asked: SweepRequest, metrics: Sequence[Metric], config: RunConfig) -> None:
    """Raises ConfigError for what a scheduler or a search cannot do."""
    if asked.hospitals is not None and (asked.scheduler == "pbt" or asked.training.workers > 1):
        raise ConfigError("--sites: trains a trial in its own process, round by round; leave out --workers and pbt")
    if asked.hospitals is not None and config.train.privacy.on and config.train.privacy.noise_multiplier is None:
        raise ConfigError(
            "train.privacy.epsilon: every site would need noise of its own for all trials; give "
            "train.privacy.noise_multiplier in a sweep of federations"
        )
    if asked.scheduler == "pbt" and keeps_numbers_home(config):
        raise ConfigError("--scheduler pbt: trains epochs again, which no privacy budget counts; take asha or none")
    if asked.scheduler != "none" and len(metrics) > 1:
        raise ConfigError(
            f"--scheduler {asked.scheduler}: compares trials in training by one metric; give one, or --scheduler none"
        )
    if asked.scheduler != "none" and not metrics[0].every_epoch:
        raise ConfigError(
            f"--scheduler {asked.scheduler}: compares trials in training by what every epoch scores, and "
            f"{metrics[0].name} is of whole scans, after the last; give --scheduler none"
        )
    if asked.scheduler == "pbt" and not population(asked.space.distributions(config, asked.fixed)):
        raise ConfigError(
            f"--scheduler pbt: changes numbers, and --space {asked.space.name} searches none; take asha or none"
        )
    if asked.scheduler == "pbt" and asked.training.workers > 1:
        raise ConfigError("--scheduler pbt: moves weights between trials of one worker; leave out --workers")


def _said(
    asked: SweepRequest, plan: TrainingPlan, split: Split, metrics: Sequence[Metric], first: Mapping[str, Any]
) -> dict[str, Any]:
    """sweep.json."""
    return {
        "config": plan.config.model_dump(mode="json"),
        "space": asked.space.name,
        "first": dict(first),
        "trials": asked.trials,
        "scheduler": asked.scheduler,
        "search": asked.search,
        "gpu_share": asked.gpu_share,
        "fixed": {name: plan.config.flat()[name] for name in sorted(asked.fixed)},
        "hospitals": None if asked.hospitals is None else asdict(asked.hospitals),
        "metrics": [asdict(metric) for metric in metrics],
        "split": split.to_dict(),
        "request": asked.training.to_dict(),
        "phantom": plan.cohort.phantom,
        "privacy": budget_told(plan.config, asked.trials, hospitals=asked.hospitals is not None),
    }


def _told_in_common(said: Mapping[str, Any]) -> dict[str, str]:
    """What the sweep's page in MLflow says of all trials."""
    return {
        "recipe": said["config"]["recipe"],
        "seed": str(said["config"]["seed"]),
        "metric": ", ".join(metric["name"] for metric in said["metrics"]),
        **{name: str(said[name]) for name in ("space", "trials", "scheduler", "search")},
    }


def _tune_plan(asked: SweepRequest, config: RunConfig, metrics: Sequence[Metric], first: Mapping[str, Any]) -> Plan:
    threads, workers = config.train.threads, asked.training.workers
    several = workers > 1  # they are beside the trial, which waits for them
    return Plan(
        ask=asked.space.asks(config, asked.fixed),
        begin=(first,),
        distributions=asked.space.distributions(config, asked.fixed),
        trials=asked.trials,
        scheduler=asked.scheduler,
        search=asked.search,
        metrics={metric.name: metric.mode for metric in metrics},
        epochs=build_system(config).stages[-1].epochs,
        seed=config.seed,
        cpus=0.0 if several else threads,
        gpus=asked.gpu_share if asked.training.gpus and not several else 0.0,
        at_once=_that_fit(workers, threads, gpus=asked.training.gpus) if several else None,
    )


def _that_fit(workers: int, threads: int, *, gpus: bool) -> int:
    """Trials of several workers that the cluster holds at once: more would wait for each other for ever."""
    total = cluster_resources()
    room = total.get("CPU", 0) // (workers * threads)
    if gpus:
        room = min(room, total.get("GPU", 0) // workers)
    return max(1, int(room))


def _record(end: TrialEnd, job: TrialJob) -> TrialRecord:
    run = job.run_of(end.number)
    begun = (run.folder / "run.json").exists()
    said = run.description() if begun else {}
    ending: Ending = "finished"
    reason = ""
    kind, _, told = str(said.get("error")).partition(": ")
    if kind in ENDS:
        ending, reason = ENDS[kind], told
    elif end.failed:
        ending, reason = "failed", str(said.get("error") or end.reason)
    elif not (begun and run.finished):
        ending, reason = "stopped", "others were ahead of it"
    return TrialRecord(
        run.name,
        dict(end.values),
        {name: value for name, value in _reported(end, job) if math.isfinite(value)},
        int(end.scores.get(EPOCH, 0)),
        ending,
        reason,
        float(end.scores.get("time_total_s", 0.0)),
        *_curve(run, job),
    )


def _reported(end: TrialEnd, job: TrialJob) -> Iterator[tuple[str, float]]:
    return ((metric.name, float(end.scores.get(metric.name, math.nan))) for metric in job.metrics)


def _curve(run: Run, job: TrialJob) -> tuple[tuple[tuple[int, float], ...], int | None]:
    """The first metric by epoch of the last stage, and which of its epochs is kept."""
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


def _closed(trial: TrialRecord) -> TrialRecord:
    """A trial that was stopped could not say so itself."""
    run = named_run(trial.name)
    if trial.ending == "stopped" and (run.folder / "run.json").exists():
        _told_in_its_place(run, "stopped")
    return trial


def _track(trial: TrialRecord) -> None:
    """What came of it, in MLflow."""
    run = named_run(trial.name)
    if (run.folder / "run.json").exists():
        # An error's words may hold paths and patients, which are not for a server.
        reason = trial.reason if trial.ending in ("stopped", "diverged") else ""
        tags = {"ganseg.ending": trial.ending, "ganseg.reason": reason}
        log_trial(tracked(run), trial.scores, tags)


def _told_in_its_place(trial: Run, status: str) -> None:
    """How it ended, in its folder and in MLflow."""
    trial.describe(status=status, error=None)
    tracked(trial).end("KILLED")

"""A sweep: trials that differ in the fields of a space, and what each came to.

runs/SWEEP/sweep.json     what was asked: the config, the space, the metrics, the split
runs/SWEEP/tune/          Ray Tune's own state, from which a killed sweep goes on
runs/SWEEP/trials.json    each trial's values, scores, epochs and how it ended
runs/SWEEP/best.json      the best trial's values
runs/SWEEP.00003/         a trial's own run, like any other
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ganseg_dist.atomic import write_json
from ganseg_dist.config import RunConfig
from ganseg_dist.data.cohort import Split, split_as_configured
from ganseg_dist.engine.checkpoint import FolderCheckpoints
from ganseg_dist.errors import ConfigError, RunError
from ganseg_dist.runners.cluster import cluster_resources, map_on_cluster, ray_cluster, require_resources
from ganseg_dist.runners.lessons import refuse_empty_stages
from ganseg_dist.runners.ray_tune import EPOCH, Plan, Scheduler, Search, TrialEnd, run_trials
from ganseg_dist.runners.session import Bar, TrainingRequest, no_bar, plan_training, prepare_plan
from ganseg_dist.runs import Run, named_run, runs_root
from ganseg_dist.sweeps.metric import Metric, metrics_of
from ganseg_dist.sweeps.record import Ending, Sweep, TrialRecord
from ganseg_dist.sweeps.space import Space
from ganseg_dist.sweeps.trial import DIVERGED, TrialJob
from ganseg_dist.systems import build_system
from ganseg_dist.tracking.tracked_run import TrackedRun, open_parent


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


def sweep(
    asked: SweepRequest, *, watch: Callable[[TrialRecord, int], None] = lambda trial, done: None, bar: Bar = no_bar
) -> tuple[Sweep, TrackedRun]:
    """Every trial to its end; interrupted and called again, it goes on. With it, the sweep's place in MLflow.

    Args:
        watch: told each trial that ends, and how many have.

    Raises RunError when the name stands for another sweep.
    """
    training = asked.training
    found = named_run(training.name())
    first = asked.space.first(training.config)  # refused before Ray is waited for
    with ExitStack() as stack:
        with bar("Starting Ray"):
            stack.enter_context(ray_cluster(dashboard=True))
        plan = plan_training(training, mapper=map_on_cluster, bar=bar)
        metrics = metrics_of(asked.metrics, plan.config)
        split = split_as_configured(plan.cohort, plan.config)
        _refuse_unfit(asked, metrics)
        _begin(found, asked, plan.config, split, metrics, first)
        require_resources(workers=training.workers, threads=plan.config.train.threads, gpus=training.gpus)
        prepared = prepare_plan(plan, split, map_on_cluster, bar)
        refuse_empty_stages(plan.config, prepared.open(plan.config), plan.cohort)
        params = {"recipe": plan.config.recipe, "space": asked.space.name, "trials": str(asked.trials)}
        parent = open_parent(found.folder, "sweep", params)
        job = TrialJob(
            runs_root(), found.name, plan.config, plan.fingerprint, plan.cohort, split, prepared, metrics,
            training.to_dict(), parent, training.workers, training.gpus,
        )  # fmt: skip
        ended = 0

        def told(end: TrialEnd) -> None:
            nonlocal ended
            ended += 1
            watch(_record(end, job), ended)

        ends = run_trials(_tune_plan(asked, plan.config, metrics, first), job.train, found.folder, told)
    trials = tuple(_closed(_record(end, job), job) for end in sorted(ends, key=lambda end: end.number))
    write_json(found.folder / "trials.json", [asdict(trial) for trial in trials])
    return Sweep(found, asked.space.name, metrics, trials), parent


def resumed_sweep(name: str, spaces: Mapping[str, Space]) -> SweepRequest:
    """The request of a sweep to go on with. Raises RunError when there is none of this name."""
    found = named_run(name)
    said = found.read("sweep.json")
    try:
        request = said["request"]
        training = TrainingRequest(
            RunConfig.from_json(json.dumps(said["config"]), str(found.folder / "sweep.json")),
            Path(request["data"]), request["layout"], run_name=name, workers=request["workers"], gpus=request["gpus"],
        )  # fmt: skip
        metrics = tuple(metric["name"] for metric in said["metrics"])
        return SweepRequest(
            training, spaces[said["space"]], said["trials"], said["scheduler"], said["search"], metrics,
            said["gpu_share"],
        )  # fmt: skip
    except (KeyError, TypeError):
        raise RunError(
            f"{found.folder / 'sweep.json'}: does not say what was asked for; start the sweep's command again"
        ) from None


def _refuse_unfit(asked: SweepRequest, metrics: Sequence[Metric]) -> None:
    """Raises ConfigError for what a scheduler or a search cannot do."""
    if asked.scheduler != "none" and len(metrics) > 1:
        raise ConfigError(f"--scheduler {asked.scheduler}: stops trials by one metric; give one, or --scheduler none")
    if asked.scheduler != "none" and not metrics[0].every_epoch:
        raise ConfigError(
            f"--scheduler {asked.scheduler}: stops trials by what every epoch scores, and {metrics[0].name} is of "
            "whole scans, after the last; give --scheduler none"
        )
    if asked.scheduler == "pbt" and asked.training.workers > 1:
        raise ConfigError("--scheduler pbt: moves weights between trials of one worker; leave out --workers")


def _begin(
    found: Run,
    asked: SweepRequest,
    config: RunConfig,
    split: Split,
    metrics: Sequence[Metric],
    first: Mapping[str, Any],
) -> None:
    """Raises RunError when the name stands for something else."""
    said = {
        "config": config.model_dump(mode="json"),
        "space": asked.space.name,
        "first": dict(first),
        "trials": asked.trials,
        "scheduler": asked.scheduler,
        "search": asked.search,
        "gpu_share": asked.gpu_share,
        "metrics": [asdict(metric) for metric in metrics],
        "split": split.to_dict(),
        "request": asked.training.to_dict(),
    }
    file = found.folder / "sweep.json"
    if not file.exists():
        if found.folder.exists() and any(found.folder.iterdir()):
            raise RunError(f"{found.folder}: is there already and is no sweep; choose another --run-name")
        write_json(file, said)
        return
    before = found.read("sweep.json")
    for name, value in json.loads(json.dumps(said)).items():
        if before.get(name) != value:
            raise RunError(f"{found.name}: was begun with another {name}; choose another --run-name")


def _tune_plan(asked: SweepRequest, config: RunConfig, metrics: Sequence[Metric], first: Mapping[str, Any]) -> Plan:
    threads, workers = config.train.threads, asked.training.workers
    several = workers > 1  # they are beside the trial, which waits for them
    return Plan(
        ask=asked.space.ask,
        first=first,
        distributions=asked.space.distributions(config),
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
    if str(said.get("error")).startswith(DIVERGED):
        ending, reason = "diverged", said["error"].removeprefix(f"{DIVERGED}: ")
    elif end.failed:
        ending, reason = "failed", str(said.get("error") or "its process died")
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
        _curve(run, job),
    )


def _reported(end: TrialEnd, job: TrialJob) -> Iterator[tuple[str, float]]:
    return ((metric.name, float(end.scores.get(metric.name, math.nan))) for metric in job.metrics)


def _curve(run: Run, job: TrialJob) -> tuple[float, ...]:
    newest = FolderCheckpoints(run.checkpoints).latest()
    if newest is None:
        return ()
    last = build_system(run.config()).stages[-1].name
    history = json.loads((newest / "state.json").read_text())["position"]["history"]
    first = job.metrics[0].score
    return tuple(record["scores"][first] for record in history if record["stage"] == last and first in record["scores"])


def _closed(trial: TrialRecord, job: TrialJob) -> TrialRecord:
    """A trial that was stopped could not say so itself: neither in its folder nor in MLflow."""
    run = named_run(trial.name)
    if trial.ending == "stopped" and (run.folder / "run.json").exists():
        run.describe(status="stopped", error=None)
        TrackedRun(job.parent.uri, run.mlflow_id, job.parent.experiment_id).end("KILLED")
    return trial

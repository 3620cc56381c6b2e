"""A training session from a folder of images to a finished run: what `ganseg train` does, step by step."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from ganseg_dist.cluster.ray_cluster import map_on_cluster
from ganseg_dist.cluster.shared_paths import cluster_with_shared_paths
from ganseg_dist.cluster.train import train_on_ray
from ganseg_dist.config import RunConfig, override
from ganseg_dist.data.cohort import Cohort, Split, split_as_configured, split_by_patient
from ganseg_dist.data.preflight import COHORT, Finding
from ganseg_dist.data.readers import read_cohort
from ganseg_dist.display import Convention, display_convention
from ganseg_dist.engine.checkpoint import FolderCheckpoints
from ganseg_dist.engine.patient_privacy import validate_patient_privacy
from ganseg_dist.engine.tracker import NullTracker, Tracker, Trackers
from ganseg_dist.engine.world import World
from ganseg_dist.errors import GansegError, RunError
from ganseg_dist.inference.predictor import usable_device
from ganseg_dist.planning.data_checks import (
    check_command,
    finding_of,
    mask_findings,
    order_finding,
    raise_first,
    slice_findings,
    split_findings,
    warn_of,
)
from ganseg_dist.planning.plan import Prepared, by_part, fingerprint, open_run, planned_run
from ganseg_dist.planning.prepare import (
    Mapper,
    Preflight,
    labelled,
    map_here,
    preflight,
    prepare_cohort,
    usable_cohort,
)
from ganseg_dist.planning.resolve import check_no_overlap, resolve
from ganseg_dist.runs import Run, find_run, generated_name, named_run, runs_root, training_run
from ganseg_dist.systems import build_system
from ganseg_dist.systems.base import Monitor
from ganseg_dist.tracking.mlflow_tracker import MLflowTracker
from ganseg_dist.tracking.tracked_run import TrackedRun
from ganseg_dist.training.local import train_here
from ganseg_dist.training.run_training import only_trainer, run_training

Bar = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]
"""Opens a progress bar with a title; its value is called with (done, total)."""


@contextmanager
def no_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """Shows nothing."""
    yield lambda done, total: None


@dataclass(frozen=True, slots=True)
class TrainingRequest:
    """What a person asked for; a resumed run asks again for what it was started with."""

    config: RunConfig
    data: Path
    layout: str | None = None
    healthy: Path | None = None
    run_name: str | None = None
    workers: int = 1
    gpus: bool = False
    local: bool = False
    exclude_bad: bool = False
    split: Split | None = None
    """Patients by part, where an experiment decides them; the run saves it."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """More for MLflow, such as the run that this one is a trial of."""
    labels: str | None = None
    """The scheme of the masks' values, where somebody stated it."""
    least_workers: int | None = None
    """To go on with when there is no room for all `workers`; none: all of them or none."""
    convention: Convention = field(default_factory=display_convention)
    """Of example pictures: workers and trials on other machines draw as this one's GANSEG_DISPLAY says."""

    def to_dict(self) -> dict[str, Any]:
        """All but the config, which the run saves resolved, and the convention, which is that of whoever resumes."""
        return {
            "data": str(self.data.absolute()),
            "layout": self.layout,
            "labels": self.labels,
            "healthy": None if self.healthy is None else str(self.healthy.absolute()),
            "workers": self.workers,
            "least_workers": self.least_workers,
            "gpus": self.gpus,
            "local": self.local,
            "exclude_bad": self.exclude_bad,
        }

    @classmethod
    def of_run(cls, run: Run) -> TrainingRequest:
        """The request that made a run."""
        try:
            asked = run.description()["request"]
            asked["data"] = Path(asked["data"])
            asked["healthy"] = None if asked["healthy"] is None else Path(asked["healthy"])
            return cls(run.config(), run_name=run.name, **asked)
        except (KeyError, TypeError):
            file = run.folder / "run.json"
            raise RunError(f"{file}: does not say what was asked for; start the training command again") from None

    def name(self) -> str:
        """The asked name, or one made of recipe and data that is not taken by a finished run."""
        if self.run_name is not None:
            return training_run(self.run_name).name
        place = self.data.resolve()
        stem = place.stem if place.suffix.lower() == ".csv" else place.name
        base = generated_name(self.config.recipe, stem)
        names = (base if count == 1 else f"{base}-{count}" for count in range(1, 10_000))
        return next(name for name in names if not named_run(name).finished)


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be trained: everything known before an image is prepared."""

    config: RunConfig
    found: Preflight
    cohort: Cohort
    healthy: tuple[Preflight, Cohort] | None
    monitors: Mapping[str, Monitor]
    """What chooses each stage's epoch, by stage."""
    class_order: tuple[Finding, ...]
    """A warning where nobody decided which of two classes is sought."""

    def split_findings(self, split: Split) -> tuple[Finding, ...]:
        """What the split leaves to learn from and to score, as far as it is known before slices are prepared."""
        return split_findings(self.found, self.cohort, self.config, split)

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What data.json holds: everything the run learns from."""
        told = fingerprint(self.cohort, self.found)
        told["healthy"] = None if self.healthy is None else fingerprint(self.healthy[1], self.healthy[0])
        return told


def plan_training(request: TrainingRequest, *, mapper: Mapper = map_here, bar: Bar = no_bar) -> Plan:
    """Read the cohort, check it, settle the config. Raises GansegError on anything that would spoil training."""
    found = _checked(read_cohort(request.data, request.layout, request.labels), request.config, mapper, bar)
    cohort = _trainable(found, request.config, exclude_bad=request.exclude_bad)
    healthy = None
    if request.healthy is not None:
        healthy_found = _checked(read_cohort(request.healthy), request.config, mapper, bar)
        healthy = (healthy_found, usable_cohort(healthy_found, exclude_bad=request.exclude_bad))
        check_no_overlap(cohort, healthy[1])
    return _planned(found, cohort, request.config, healthy)


def plan_findings(found: Preflight, config: RunConfig) -> tuple[Finding, ...]:
    """What training of this config on a checked cohort would warn of or reject, beside what the checks found.

    Cases with an error are left out of it; where none is left there is nothing to say.
    """
    if any(finding.case == COHORT for finding in found.errors) or len(found.bad_cases) == len(found.cohort.cases):
        return ()
    try:
        plan = _planned(found, _trainable(found, config, exclude_bad=True), config)
        split = split_as_configured(plan.cohort, plan.config)
    except GansegError as error:
        return (finding_of(error),)
    return (*plan.class_order, *plan.split_findings(split))


def _trainable(found: Preflight, config: RunConfig, *, exclude_bad: bool) -> Cohort:
    cohort = labelled(usable_cohort(found, exclude_bad=exclude_bad), config)
    if config.system.task == "segmentation":
        raise_first(mask_findings(found, cohort))
    return cohort


def _planned(
    found: Preflight, cohort: Cohort, asked: RunConfig, healthy: tuple[Preflight, Cohort] | None = None
) -> Plan:
    config = resolve(asked, cohort, healthy[1] if healthy else None)
    system = build_system(config)  # refuses what its phases cannot do, before hours of preparation
    if config.train.privacy.on:
        validate_patient_privacy(config, system, World())
    monitors = {stage.name: stage.monitor for stage in system.stages}
    return Plan(config, found, cohort, healthy, monitors, tuple(order_finding(cohort, asked, config)))


def check_gpu(request: TrainingRequest) -> None:
    """Raises RunError when this machine is to train on a GPU and has none; a cluster answers for itself."""
    if request.gpus and "RAY_ADDRESS" not in os.environ:
        usable_device("cuda")


def train_session(request: TrainingRequest, *, tracker: Tracker | None = None, bar: Bar = no_bar) -> Run:
    """Train until the run is finished; interrupted and called again, it goes on. A finished run is left as it is."""
    started = time.monotonic()
    name = request.name()
    check_gpu(request)
    with ExitStack() as stack:
        if not request.local:
            with bar("Starting Ray"):
                stack.enter_context(cluster_with_shared_paths(request.data, request.healthy))
        mapper = map_here if request.local else map_on_cluster
        plan = plan_training(request, mapper=mapper, bar=bar)
        learnt_from = plan.fingerprint
        run, split = planned_run(name, plan.config, learnt_from, plan.cohort, request.split)
        if not run.finished:
            warn = partial((tracker or NullTracker()).warn, 0)
            warned = check_plan(plan, request, {"": split}, warn)
            prepared = prepare_plan(plan, split, mapper, bar)
            check_slices(plan, prepared, warned, warn)  # before the name is taken
        run, split = open_run(
            name,
            plan.config,
            learnt_from,
            plan.cohort,
            split=request.split,
            request=request.to_dict(),
            workers=request.workers,
            device="cuda" if request.gpus else "cpu",
        )
        stack.enter_context(only_trainer(run))
        if run.finished:
            return run
        if not request.local:
            with bar(f"Starting {request.workers} Ray worker(s)"):
                pass

        def train(tracked: TrackedRun) -> Path:
            return _train(run, plan.config, prepared, request, tracked, tracker or NullTracker())

        run_training(run, train, monitors=plan.monitors, tags=request.tags, started=started)
    return run


def check_plan(
    plan: Plan, request: TrainingRequest, splits: Mapping[str, Split], warn: Callable[[str], object]
) -> tuple[Finding, ...]:
    """Warn of what `ganseg check` warns of, before anything is prepared; what was found of the splits.

    Args:
        splits: by the trial that trains on it; a finding on one of several names it.

    Raises DataError where a split leaves nothing to learn from.
    """
    trials: dict[Split, list[str]] = {}
    for name, split in splits.items():
        trials.setdefault(split, []).append(name)
    findings = tuple(
        replace(finding, case=names[0] if len(trials) > 1 else COHORT)
        for split, names in trials.items()
        for finding in plan.split_findings(split)
    )
    raise_first(findings)
    warn_of_cohorts(plan, request, warn)
    warn_of(findings, warn, check_command(request.data, plan.config.recipe, request.layout, request.labels))
    return findings


def warn_of_cohorts(plan: Plan, request: TrainingRequest, warn: Callable[[str], object]) -> None:
    """What is found of them, however they are split."""
    recipe = plan.config.recipe
    of_cohort = (*plan.found.findings, *plan.class_order)
    warn_of(of_cohort, warn, check_command(request.data, recipe, request.layout, request.labels))
    if plan.healthy is not None and request.healthy is not None:
        warn_of(plan.healthy[0].findings, warn, check_command(request.healthy, recipe))


def check_slices(
    plan: Plan, prepared: Prepared, warned: Sequence[Finding], warn: Callable[[str], object]
) -> tuple[Finding, ...]:
    """Warn of what only the prepared slices show; all that they show. Raises DataError as `check_plan` does."""
    findings = slice_findings(plan.config, prepared.open(plan.config), plan.cohort)
    raise_first(findings)
    for finding in findings:
        if finding not in warned:
            warn(finding.message)
    return findings


def _train(
    run: Run, config: RunConfig, prepared: Prepared, request: TrainingRequest, tracked: TrackedRun, tracker: Tracker
) -> Path:
    if not request.local:
        return train_on_ray(
            run,
            config,
            prepared,
            workers=request.workers,
            least_workers=request.least_workers,
            gpus=request.gpus,
            tracker=tracker,
            worker_tracker=partial(MLflowTracker.of, tracked, request.convention),
        )
    logged = MLflowTracker.of(tracked, request.convention)
    try:
        train_here(run, config, prepared, Trackers(tracker, logged), gpu=request.gpus)
    finally:
        logged.close()
    return FolderCheckpoints(run.checkpoints).last()


def _checked(cohort: Cohort, config: RunConfig, mapper: Mapper, bar: Bar) -> Preflight:
    with bar(f"Checking {cohort.root.name}") as advance:
        return preflight(cohort, config, mapper=mapper, advance=advance)


def prepare_plan(plan: Plan, split: Split, mapper: Mapper = map_here, bar: Bar = no_bar) -> Prepared:
    """The slices of those who train and validate, from the store where they are there already."""
    used = plan.cohort.of_patients((*split.train, *split.validation))
    with bar("Preparing slices") as advance:
        folders = prepare_cohort(plan.found, used, plan.config.data, mapper=mapper, advance=advance)
    cohort_parts = by_part(plan.cohort, split, folders)
    if plan.healthy is None:
        return Prepared(cohort_parts)
    found, cohort = plan.healthy
    seen = override(plan.config, {"data.modalities": list(plan.config.system.gan_modalities or ())}).data
    with bar("Preparing healthy slices") as advance:
        folders = prepare_cohort(found, cohort.cases, seen, mapper=mapper, advance=advance)
    return Prepared(cohort_parts, by_part(cohort, healthy_split(cohort, plan.config), folders))


def healthy_split(cohort: Cohort, config: RunConfig) -> Split:
    """A healthy cohort is split for early stopping alone; nobody is tested on it."""
    validation = max(config.data.validation_fraction, 0.1)
    return split_by_patient(cohort, validation=validation, test=0.0, seed=config.seed)


def resumed(reference: str) -> TrainingRequest:
    """The request of a run to go on with. Raises RunError when it is finished."""
    run = find_run(reference)
    if run.finished:
        raise RunError(f"{run.name}: is finished already; see it with: ganseg report {run.name}")
    if "sites" in run.description():
        raise RunError(
            f"{run.name}: is a federation; go on with: {run.description().get('command', 'ganseg federate')}"
        )
    if run.folder.parent != runs_root().resolve():
        raise RunError(f"{run.folder}: is not in {runs_root()}; resume it with GANSEG_RUNS={run.folder.parent}")
    return TrainingRequest.of_run(run)

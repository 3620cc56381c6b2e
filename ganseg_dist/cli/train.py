"""`ganseg train`: train a recipe on a cohort."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ganseg_dist.cli import show
from ganseg_dist.cli.options import DATA_HELP, LABELS, LAYOUT, SETTINGS, recipe_config
from ganseg_dist.errors import ConfigError
from ganseg_dist.plural import counted

if TYPE_CHECKING:
    from ganseg_dist.config import RunConfig
    from ganseg_dist.planning.plan import Plan
    from ganseg_dist.planning.request import TrainingRequest
    from ganseg_dist.systems.base import Phase

BY_DATA = ("data.modalities", "data.regions", "data.classes")
MOST_CHANGES = 8
"""Largest number of changed fields that a dry run lists; --show-config shows all."""


def train(
    recipe: str | None = typer.Argument(
        None,
        metavar="[RECIPE]",
        help="As ganseg recipes lists them: NAME is the paper's size, for a GPU; NAME_small takes tens of minutes on "
        "a laptop; NAME_debug takes seconds and learns nothing useful.",
    ),
    data: Path | None = typer.Option(None, metavar="DATA", help=DATA_HELP),
    run_name: str | None = typer.Option(
        None, metavar="NAME", help="Name of the run; made of recipe and data when not given."
    ),
    assignments: list[str] = SETTINGS,
    dry_run: bool = typer.Option(False, "--dry-run", help="Check everything, show what would run, and stop."),
    show_config: bool = typer.Option(False, "--show-config", help="With --dry-run: first the whole config, as JSON."),
    workers: int = typer.Option(1, min=1, metavar="N", help="Ray Train workers; they share train.batch_size."),
    least_workers: int | None = typer.Option(
        None,
        min=1,
        metavar="N",
        help="Begin, and continue when a node is lost, with as few as these; up to --workers again when there is room.",
    ),
    gpus: bool = typer.Option(False, "--gpus", help="Give each worker a GPU (NCCL, bf16)."),
    local: bool = typer.Option(False, "--local", help="Train in this process, without Ray."),
    exclude_bad: bool = typer.Option(
        False, "--exclude-bad", help="Go on without cases that fail the checks; the run records them."
    ),
    healthy: Path | None = typer.Option(
        None, metavar="DATA", help="A separate cohort of healthy subjects for the GAN."
    ),
    layout: str | None = LAYOUT,
    labels: str | None = LABELS,
    from_sweep: str | None = typer.Option(
        None, metavar="SWEEP", help="Take the fields that ganseg tune found best; --set comes after them."
    ),
    resume: str | None = typer.Option(
        None,
        metavar="RUN",
        help="Go on with an unfinished run, as it was started; takes nothing beside it but --dry-run.",
    ),
) -> None:
    """Train a recipe on a cohort.

    On Ray Train, or with --local in this process; tracked in MLflow. After an interruption, rerun the same
    command to resume from the last checkpoint. Example pictures in MLflow show the patient's left on the right
    (radiological), or with GANSEG_DISPLAY=neurological on the left.

    [bold]ganseg train ganet_seg_small --data BraTS2020 --workers 2[/bold]

    [bold]ganseg train ganet_seg_small --data BraTS2020 --set system.gan=false --run-name plain[/bold]  (the control)
    """
    from ganseg_dist.cli.remote_runs import fetch_runs
    from ganseg_dist.planning.plan import plan_training
    from ganseg_dist.planning.request import TrainingRequest, resumed
    from ganseg_dist.runs import named_run
    from ganseg_dist.tracking.progress import RichProgress
    from ganseg_dist.training.session import check_gpu, train_session

    if show_config and not dry_run:
        raise ConfigError("--show-config: belongs to --dry-run; give both")
    if resume is not None:
        others = [
            recipe, data, run_name, assignments, workers > 1, least_workers, gpus, local, exclude_bad, healthy, layout,
            labels, from_sweep,
        ]  # fmt: skip
        if any(others):
            raise ConfigError(f"--resume {resume}: takes everything from the run; give nothing beside it but --dry-run")
        fetch_runs(resume, writing=True)
        request = resumed(resume)
    elif recipe is None or data is None:
        raise ConfigError("train: give a recipe and --data DATA, or --resume RUN; see: ganseg train --help")
    else:
        config = recipe_config(recipe, assignments, from_sweep=from_sweep)
        request = TrainingRequest(
            config, data, layout, healthy, run_name, workers, gpus, local, exclude_bad, least_workers=least_workers,
            labels=labels,
        )  # fmt: skip
    _check_workers(request, least_workers)
    if resume is None:
        _fetch_run_of(request)
    if dry_run:
        check_gpu(request)
        plan = plan_training(request, bar=show.bar)
        if show_config:
            show.echo_json(plan.config.model_dump(mode="json"))
            show.echo()
        _describe(plan, request)
        return
    was_finished = named_run(request.name()).finished
    with closing(RichProgress(show.err)) as tracker:
        run = train_session(request, tracker=tracker, bar=show.bar)
    if was_finished:
        show.err.print(f"note: {run.name} was finished before and nothing was trained; a new run needs another name")
    show.echo(f"finished: {run.folder}")
    evaluate_command = f"ganseg evaluate {run.name} --data {request.data}"
    is_classifier = request.config.system.task == "classification"  # a classifier has no threshold to choose
    show.echo(
        f"next: {evaluate_command}" if is_classifier else f"next: ganseg calibrate {run.name}, then: {evaluate_command}"
    )


def _fetch_run_of(request: TrainingRequest) -> None:
    """Fetch the run of this request. Raises ConfigError for a bad name before anything is read."""
    from ganseg_dist.cli.remote_runs import fetch_runs

    name = None
    while name != request.name():  # a generated name is another once a finished run that has it was fetched
        name = request.name()
        fetch_runs(name, writing=True)


def _check_workers(request: TrainingRequest, least: int | None) -> None:
    """Raises ConfigError unless the workers can share the batch, and with --least-workers a smaller number of them.

    Args:
        least: --least-workers; a resumed run has its own, which was checked when it began.
    """
    from ganseg_dist.cluster.elastic import sizes_between

    most, batch_size = request.workers, request.config.train.batch_size
    if request.local and least is not None:
        raise ConfigError("--local: is one process; leave out --least-workers, or leave out --local")
    if request.local and most > 1:
        raise ConfigError("--local: is one process; leave out --workers, or leave out --local")
    if least is not None and most == 1:
        raise ConfigError(f"--least-workers {least}: needs --workers, the most; give both")
    if least is not None and least > most:
        raise ConfigError(f"--least-workers {least}: is more than --workers {most}; give --workers the most")
    if batch_size % most:
        raise ConfigError(
            f"--workers {most}: do not divide train.batch_size {batch_size}; give a multiple, as in --set "
            "train.batch_size=N"
        )
    if least is not None and least < most and (fewer := sizes_between(1, most - 1, batch_size)[-1]) < least:
        raise ConfigError(
            f"--least-workers {least}: so many, and fewer than {most}, do not divide train.batch_size {batch_size}; "
            f"lower it to {fewer}"
        )


def _describe(plan: Plan, request: TrainingRequest) -> None:
    """Print warnings, then what a run would do, short enough for one terminal screen."""
    from ganseg_dist.planning.plan import check_plan
    from ganseg_dist.planning.run_folder import planned_run
    from ganseg_dist.systems import outline_system

    config, cohort = plan.config, plan.cohort
    run, split = planned_run(request.name(), config, plan.data_record, cohort)
    check_plan(plan, request, {"": split}, show.warn)
    system = outline_system(config)
    least = "" if request.least_workers is None else f", {request.least_workers} at least"
    place = f"on Ray, {counted(request.workers, 'worker')}{least}" if not request.local else "in this process"
    begins = "resumes" if (run.folder / "run.json").exists() else "begins"
    if run.finished:
        begins = "has nothing left to do:"
    left_out = len(plan.found.cohort.cases) - len(cohort.cases)
    each = f"{'a GPU' if request.gpus else 'CPU'}, {counted(config.train.threads, 'thread')}"
    lines = {
        "run": f"{begins} {run.folder}",
        "where": f"{place}, {each}{'' if request.local else ' each'}",
        "config": _changes(config),
        "data": f"{cohort.root}: {cohort.layout}, {counted(len(cohort.cases), 'case')}, {left_out} left out",
        "input": ", ".join(config.data.modalities or ()),
    }
    if config.data.regions:
        lines["regions"] = ", ".join(config.data.regions)
    if config.data.classes:
        lines["classes"] = ", ".join(config.data.classes)
    if plan.healthy is not None:
        lines["healthy"] = f"{plan.healthy[1].root}: {counted(len(plan.healthy[1].cases), 'case')}"
    for part, patients in split.to_dict().items():
        cases = cohort.of_patients(patients)
        counts = (len(patients), "patient"), (len(cases), "case"), (len({case.site for case in cases}), "site")
        lines[part] = ", ".join(counted(n, noun) for n, noun in counts)
    weights = {name: sum(each.numel() for each in network.parameters()) for name, network in system.networks.items()}
    lines["parameters"] = ", ".join(f"{name} {count:,}" for name, count in weights.items())
    for stage in system.stages:
        phases = "; ".join(_describe_phase(phase) for phase in stage.phases)
        lines[f"stage {stage.name}"] = f"{counted(stage.epochs, 'epoch')} at most: {phases}"
    width = max(map(len, lines))
    for name, line in lines.items():
        show.echo(f"{name:{width}}  {line}")
    ends = "" if run.finished else ": leave out --dry-run to begin"
    show.echo()
    show.echo(f"Nothing was trained{ends}.")


def _changes(config: RunConfig) -> str:
    """The recipe and the changed fields; fields set by the data have separate lines."""
    from ganseg_dist.systems import recipes

    values = config.flat()
    defaults = recipes()[config.recipe]().flat() if config.recipe in recipes() else values
    changed = [name for name in config.fields() if values[name] != defaults.get(name) and name not in BY_DATA]
    assignments = [f"{name}={_value(values[name])}" for name in changed[:MOST_CHANGES]]
    if len(changed) > len(assignments):
        assignments.append(f"and {len(changed) - len(assignments)} more")
    changes = f" with {', '.join(assignments)}" if assignments else ""
    return f"{config.recipe}{changes} (all fields: --show-config)"


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _describe_phase(phase: Phase) -> str:
    """A phase with its epochs, counted from 1 as in the progress line, and its cadence."""
    if phase.epochs is not None and not phase.epochs:
        return f"{phase.name} never"
    epochs = "" if phase.epochs is None else f" in epochs {phase.epochs.start + 1} to {phase.epochs.stop}"
    cadence = f" every {phase.every} batches" if phase.every > 1 else ""
    return f"{phase.name}{epochs}{cadence}"

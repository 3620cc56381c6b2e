"""`ganseg train`: from images to a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ganseg_dist.cli import show

if TYPE_CHECKING:
    from ganseg_dist.runners.session import Plan
    from ganseg_dist.systems.base import Phase


def train(
    recipe: str | None = typer.Argument(None, help="ganet_seg, ganet_seg_small or ganet_seg_debug."),
    data: Path | None = typer.Option(None, help="A folder in any supported layout, or a CSV manifest."),
    workers: int = typer.Option(1, min=1, help="Ray Train workers; train.batch_size is divided among them."),
    gpus: bool = typer.Option(False, "--gpus", help="One GPU a worker (NCCL, bf16)."),
    assignments: list[str] = typer.Option([], "--set", help="FIELD=VALUE, such as train.epochs=5; repeatable."),
    run_name: str | None = typer.Option(None, help="The run's name; made of recipe and data when not given."),
    resume: str | None = typer.Option(None, metavar="RUN", help="Go on with an unfinished run, as it was started."),
    healthy: Path | None = typer.Option(None, help="A separate cohort of healthy subjects for the GAN."),
    layout: str | None = typer.Option(None, help="Layout by name; recognised when not given."),
    exclude_bad: bool = typer.Option(False, help="Go on without cases that fail the checks; the run records them."),
    local: bool = typer.Option(False, help="In this process, without Ray."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Show what would run, then stop."),
) -> None:
    """Train a recipe, on Ray Train or (--local) in this process, tracked in MLflow.

    Interrupted and started again with the same words, it goes on from the last checkpoint.

    [bold]ganseg train ganet_seg_small --data BraTS2020 --workers 2[/bold]

    [bold]ganseg train ganet_seg_small --data BraTS2020 --set system.gan=false --run-name plain[/bold]  (the control)
    """
    from contextlib import closing

    from ganseg_dist.config import override, parse_assignments
    from ganseg_dist.errors import ConfigError
    from ganseg_dist.recipes import recipe as named
    from ganseg_dist.runners.session import TrainingRequest, plan_training, resumed, train_session
    from ganseg_dist.tracking.progress import RichProgress

    if resume is not None:
        if recipe or data or assignments or run_name:
            raise ConfigError(f"--resume {resume}: takes recipe, data and settings from the run; give no others")
        request = resumed(resume)
    else:
        if recipe is None or data is None:
            raise ConfigError("train: give a recipe and --data DATA, or --resume RUN")
        request = TrainingRequest(
            override(named(recipe), parse_assignments(assignments)),
            data,
            layout,
            healthy,
            run_name,
            workers,
            gpus,
            local,
            exclude_bad,
        )
    if local and workers > 1:
        raise ConfigError("--local: is one process; leave out --workers, or leave out --local")
    if dry_run:
        _describe(plan_training(request, bar=show.bar), request.name())
        return
    with closing(RichProgress(show.err)) as shown:
        run = train_session(request, shown=shown, bar=show.bar)
    typer.echo(f"finished: {run.folder}")
    typer.echo(f"next: ganseg evaluate {run.name} --data {request.data}")


def _describe(plan: Plan, name: str) -> None:
    """What a run would do, from the plan alone."""
    from ganseg_dist.data.cohort import split_by_patient
    from ganseg_dist.systems import build_system

    config = plan.config
    split = split_by_patient(
        plan.cohort, validation=config.data.validation_fraction, test=config.data.test_fraction, seed=config.seed
    )
    system = build_system(config)
    typer.echo(config.to_json())
    typer.echo(f"run {name}")
    for part, patients in split.to_dict().items():
        typer.echo(f"{part}: {len(patients)} patients, {len(plan.cohort.of_patients(patients))} cases")
    for network_name, network in system.networks.items():
        typer.echo(f"{network_name}: {sum(p.numel() for p in network.parameters()):,} parameters")
    for stage in system.stages:
        phases = ", ".join(_describe_phase(phase) for phase in stage.phases)
        typer.echo(f"stage {stage.name}: up to {stage.epochs} epochs; {phases}")


def _describe_phase(phase: Phase) -> str:
    epochs = "all epochs" if phase.epochs is None else f"epochs {phase.epochs.start} to {phase.epochs.stop - 1}"
    cadence = f", every {phase.every} batches" if phase.every > 1 else ""
    return f"{phase.name} ({epochs}{cadence})"

"""`ganseg tune`: many trials of one recipe, and the fields that do best on validation patients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ganseg_dist.cli import show
from ganseg_dist.cli.publish import ending
from ganseg_dist.cli.words import DATA_HELP, LAYOUT_HELP, SET_HELP

if TYPE_CHECKING:
    from ganseg_dist.sweeps.record import Sweep, TrialRecord
    from ganseg_dist.sweeps.sweep import SweepRequest
    from ganseg_dist.tracking.tracked_run import TrackedRun


def tune(
    recipe: str | None = typer.Argument(None, metavar="[RECIPE]", help="As ganseg recipes lists them."),
    data: Path | None = typer.Option(None, metavar="DATA", help=DATA_HELP),
    space: str | None = typer.Option(
        None, metavar="NAME", help="What is tried, a function in tune_spaces; the recipe's own when not given."
    ),
    trials: int = typer.Option(20, min=1, metavar="N", help="Trials in all; the first takes the published values."),
    scheduler: str = typer.Option(
        "asha",
        metavar="asha|pbt|none",
        help="asha stops trials that fall behind; pbt lets them go on from better ones with other values; none waits.",
    ),
    search: str = typer.Option(
        "optuna", metavar="optuna|random", help="optuna learns from the trials before (TPE); random does not."
    ),
    metrics: list[str] = typer.Option(
        [],
        "--metric",
        metavar="NAME",
        help="What to make large (or small: HD95), such as val/dice_wt; given twice or more, a Pareto front.",
    ),
    run_name: str | None = typer.Option(
        None, metavar="NAME", help="Name of the sweep; made of recipe and data when not given."
    ),
    assignments: list[str] = typer.Option([], "--set", metavar="FIELD=VALUE", help=SET_HELP),
    workers: int = typer.Option(1, min=1, metavar="N", help="Ray Train workers of each trial."),
    gpus: bool = typer.Option(False, "--gpus", help="Give each worker a GPU."),
    gpu_share: float = typer.Option(1.0, min=0.05, max=1.0, metavar="SHARE", help="Of a GPU, with --gpus, a trial."),
    layout: str | None = typer.Option(None, metavar="NAME", help=LAYOUT_HELP),
    resume: str | None = typer.Option(
        None, metavar="SWEEP", help="Go on with a sweep that was interrupted, as it was begun; takes nothing beside it."
    ),
) -> None:
    """Search the fields of a recipe that do best on validation patients.

    Every trial is a run like any other, NAME.001 and on, of the same patients and prepared slices; test patients are
    never looked at. Interrupted and started again with the same words, it goes on.

    [bold]ganseg tune ganet_seg_small --data BraTS2020 --trials 30 --run-name sweep[/bold]

    [bold]ganseg train ganet_seg --data BraTS2020 --from-sweep sweep[/bold]  (the winner in full)
    """
    from ganseg_dist.config import override, parse_assignments
    from ganseg_dist.errors import ConfigError
    from ganseg_dist.recipes import recipe as named
    from ganseg_dist.runners.session import TrainingRequest
    from ganseg_dist.sweeps.sweep import SweepRequest, resumed_sweep, sweep
    from tune_spaces import SPACES, space_of

    if resume is not None:
        if recipe or data or space or run_name or assignments or metrics or layout or gpus or workers > 1:
            raise ConfigError(f"--resume {resume}: takes everything from the sweep; give nothing beside it")
        request = resumed_sweep(resume, SPACES)
    elif recipe is None or data is None:
        raise ConfigError("tune: give a recipe and --data DATA, or --resume SWEEP; see: ganseg tune --help")
    else:
        config = override(named(recipe), parse_assignments(assignments))
        name = run_name or f"tune-{recipe}-{data.resolve().stem}"
        training = TrainingRequest(config, data, layout, run_name=name, workers=workers, gpus=gpus)
        request = SweepRequest(
            training,
            space_of(config.system.name, space),
            trials,
            _one_of("--scheduler", scheduler, ("asha", "pbt", "none")),
            _one_of("--search", search, ("optuna", "random")),
            tuple(metrics),
            gpu_share,
        )
    with _watching(request.trials) as watch:
        done, parent = sweep(request, watch=watch, bar=show.bar)
    with ending(parent):
        _publish(done, parent, request)


def _one_of(option: str, value: str, known: tuple[str, ...]) -> Any:
    from ganseg_dist.errors import ConfigError

    if value not in known:
        raise ConfigError(f"{option} {value}: is not known; choose among {', '.join(known)}")
    return value


@contextmanager
def _watching(trials: int) -> Iterator[Any]:
    """A bar over the trials, and a line for each that ends."""
    with show.bar("trials") as advance:
        advance(0, trials)

        def watch(trial: TrialRecord, done: int) -> None:
            show.err.print(f"{trial.name}  {_told(trial)}", markup=False)
            advance(done, trials)

        yield watch


def _told(trial: TrialRecord) -> str:
    """`val/dice_wt 0.712 after 12 epochs, stopped: others were ahead of it`."""
    scores = "  ".join(f"{name} {value:.4g}" for name, value in trial.scores.items()) or "no score"
    reason = f": {trial.reason}" if trial.reason else ""
    return f"{scores} after {trial.epochs} epochs, {trial.ending}{reason}"


def _publish(done: Sweep, parent: TrackedRun, request: SweepRequest) -> None:
    """Tables, figures and the best values: to the folder, to MLflow and to the terminal."""
    from ganseg_dist.sweeps.page import write_page
    from ganseg_dist.sweeps.publish import save_sweep, table_of
    from ganseg_dist.tracking.results import log_experiment

    files = (*save_sweep(done), write_page(done))
    header, rows = table_of(done)
    best = done.best
    lines = [header, ["---"] * len(header), *rows]
    page = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    log_experiment(parent, {f"best/{name}": value for name, value in best.scores.items()}, page, files)
    show.table(f"{done.run.name}: validation scores, best first", header, rows)
    typer.echo(f"best: {best.name}, {_values(best.values)}")
    ended = [trial.ending for trial in done.trials]
    told = ", ".join(f"{ended.count(kind)} {kind}" for kind in dict.fromkeys(ended))
    typer.echo(f"trials: {told}")
    typer.echo(f"written: {', '.join(map(str, files))}")
    recipe, data = request.training.config.recipe, request.training.data
    typer.echo(f"next: ganseg train {recipe} --data {data} --from-sweep {done.run.name}")


def _values(values: Mapping[str, Any]) -> str:
    return " ".join(
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}" for name, value in values.items()
    )

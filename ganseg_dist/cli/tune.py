"""`ganseg tune`: search the fields of a recipe that do best on validation patients."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ganseg_dist.cli import show
from ganseg_dist.cli.options import DATA_HELP, LABELS, LAYOUT, SET_HELP, SKEW, recipe_config
from ganseg_dist.cli.publish import ending
from ganseg_dist.config import parse_assignments
from ganseg_dist.errors import ConfigError, RunError
from ganseg_dist.plural import counted

if TYPE_CHECKING:
    from ganseg_dist.studies.sweeps.request import SweepRequest
    from ganseg_dist.studies.sweeps.sweep import Sweep
    from ganseg_dist.studies.trial import TrialResult
    from ganseg_dist.tracking.tracked_run import TrackedRun


def tune(
    subject: str | None = typer.Argument(
        None,
        metavar="[RECIPE]",
        help="As ganseg recipes lists them; with --space thresholds a finished run's name, as ganseg train prints it.",
    ),
    data: Path | None = typer.Option(None, metavar="DATA", help=DATA_HELP),
    space: str | None = typer.Option(
        None,
        metavar="NAME",
        help="What is tried, a function in tune_spaces; the recipe's when not given. thresholds trains nothing.",
    ),
    trials: int | None = typer.Option(
        None, min=1, metavar="N", show_default="20", help="Trials in all; the first takes the published values."
    ),
    scheduler: str | None = typer.Option(
        None,
        metavar="asha|pbt|none",
        show_default="asha",
        help="asha stops trials that fall behind; pbt lets them continue from better ones with new values; none waits.",
    ),
    search: str | None = typer.Option(
        None,
        metavar="optuna|random",
        show_default="optuna",
        help="optuna learns from the trials before (TPE); random does not.",
    ),
    metrics: list[str] = typer.Option(
        [],
        "--metric",
        metavar="NAME",
        help="What to make large (or small: HD95), such as val/dice_wt; twice or more: a Pareto front.",
    ),
    run_name: str | None = typer.Option(
        None, metavar="NAME", help="Name of the sweep; made of recipe and data when not given."
    ),
    assignments: list[str] = typer.Option(
        [], "--set", metavar="FIELD=VALUE", help=f"{SET_HELP} What is set is not searched."
    ),
    sites: str | None = typer.Option(
        None, metavar="by-hospital|N", help="Train each trial as a federation of these, as ganseg federate has them."
    ),
    skew: str | None = SKEW,
    workers: int = typer.Option(1, min=1, metavar="N", help="Ray Train workers of each trial."),
    gpus: bool = typer.Option(False, "--gpus", help="Give each worker a GPU."),
    gpu_share: float | None = typer.Option(
        None, min=0.05, max=1.0, metavar="SHARE", show_default="1", help="Of a GPU, with --gpus, a trial."
    ),
    layout: str | None = LAYOUT,
    labels: str | None = LABELS,
    resume: str | None = typer.Option(
        None, metavar="SWEEP", help="Resume a sweep that was interrupted, as it was started; takes nothing beside it."
    ),
) -> None:
    """Search the fields of a recipe, or a trained model's thresholds, that do best on validation patients.

    Every trial is a run like any other, NAME.001 and on, of the same patients and prepared slices; test patients are
    never used. Thresholds are tried on a run's stored predictions. After an interruption, rerun the same command to
    resume.

    [bold]ganseg tune ganet_seg_small --data BraTS2020 --trials 30 --run-name sweep[/bold]

    [bold]ganseg train ganet_seg --data BraTS2020 --from-sweep sweep[/bold]  (the winner in full)

    [bold]ganseg tune ganet_seg_small --data kaggle_3m --space federation --sites by-hospital[/bold]

    [bold]ganseg tune RUN --space thresholds --metric val/dice --metric val/hd95 --trials 60[/bold]
    """
    from ganseg_dist.cli.remote_runs import fetch_runs
    from ganseg_dist.federation.partition import check_sites
    from ganseg_dist.planning.request import TrainingRequest
    from ganseg_dist.runs import generated_name
    from ganseg_dist.studies.sweeps.request import Hospitals, SweepRequest
    from ganseg_dist.studies.sweeps.thresholds import SPACE
    from tune_spaces import space_of

    of_training = {
        "--set": assignments, "--layout": layout, "--labels": labels, "--sites": sites, "--skew": skew,
        "--scheduler": scheduler, "--workers": workers > 1, "--gpu-share": gpu_share,
    }  # fmt: skip
    if resume is not None:
        others = [subject, data, space, trials, search, metrics, run_name, gpus, *of_training.values()]
        if any(others):
            raise ConfigError(f"--resume {resume}: takes everything from the sweep; give nothing beside it")
        _resume(resume)
        return
    trials, searched = trials or 20, _validate_choice("--search", search or "optuna", ("optuna", "random"))
    if subject is None:
        raise ConfigError("tune: give a recipe and --data DATA, or --resume SWEEP; see: ganseg tune --help")
    if space == SPACE:
        for option, value in of_training.items():
            if value:
                raise ConfigError(f"{option}: is of training, and thresholds train nothing; leave it out")
        _tune_thresholds(subject, data, trials, searched, tuple(metrics), run_name, gpu=gpus)
        return
    if data is None:
        raise ConfigError("--data: is missing; give the cohort to train on")
    if space == "federation" and sites is None:
        sites = "by-hospital"
    if skew is not None and sites is None:
        raise ConfigError("--skew: is of simulated hospitals; give --sites N")
    scheduled = _validate_choice("--scheduler", scheduler or "asha", ("asha", "pbt", "none"))
    config = recipe_config(subject, assignments)
    if sites is not None:
        check_sites(sites, skew)
    name = run_name or generated_name("tune", subject, data.resolve().stem, *([space] if space else []))
    training = TrainingRequest(config, data, layout, run_name=name, workers=workers, gpus=gpus, labels=labels)
    request = SweepRequest(
        training, space_of(config.system.name, space), trials, scheduled, searched, tuple(metrics), gpu_share or 1.0,
        None if sites is None else Hospitals(sites, skew), tuple(sorted(parse_assignments(assignments))),
    )  # fmt: skip
    fetch_runs(name, writing=True)
    _tune_fields(request)


def _resume(sweep: str) -> None:
    from ganseg_dist.cli.remote_runs import fetch_runs
    from ganseg_dist.runs import runs_root
    from ganseg_dist.studies.study import find_study
    from ganseg_dist.studies.sweeps.request import stored_request
    from tune_spaces import spaces

    fetch_runs(sweep, writing=True)
    study = find_study(sweep, "sweep")
    if study is None:
        raise RunError(f"{sweep}: is no sweep in {runs_root()}; begin one: ganseg tune RECIPE --data DATA")
    request = study.request
    if "run" not in request:
        _tune_fields(stored_request(study, spaces()))
        return
    metrics = tuple(metric["name"] for metric in request["metrics"])
    _tune_thresholds(request["run"], None, request["trials"], request["search"], metrics, study.name)


def _tune_fields(request: SweepRequest) -> None:
    from ganseg_dist.cli.remote_runs import fetch_runs
    from ganseg_dist.studies.sweeps.run import run_sweep

    trainer = None
    if request.hospitals is not None:
        from clients.app import app
        from server.trial import FederatedTrialTrainer

        trainer = FederatedTrialTrainer(request.hospitals, app)
    name = request.name
    if not _note_if_ended(name):
        fetch_runs(*(f"{name}.{number:03d}" for number in range(1, request.trials + 1)))
    with _trial_progress(request.trials) as watch:
        done, parent = run_sweep(request, trainer=trainer, watch=watch, bar=show.bar, warn=show.warn)
    with ending(parent):
        _publish(done, parent)


def _tune_thresholds(
    name: str,
    data: Path | None,
    trials: int,
    search: Any,
    metrics: tuple[str, ...],
    run_name: str | None,
    *,
    gpu: bool = False,
) -> None:
    from ganseg_dist.cli.models import segmenting_run, validation_cases
    from ganseg_dist.cli.remote_runs import fetch_runs
    from ganseg_dist.studies.sweeps.thresholds import ThresholdRequest, search_thresholds
    from tune_spaces.thresholds import THRESHOLDS

    fetch_runs(name)
    run = segmenting_run(name)
    cases = validation_cases(run, data)
    request = ThresholdRequest(run, THRESHOLDS, trials, search, metrics, run_name or f"{run.name}-thresholds")
    fetch_runs(request.name)
    _note_if_ended(request.name)
    with _trial_progress(trials) as watch:
        done, parent = search_thresholds(request, cases, gpu=gpu, watch=watch, bar=show.bar)
    with ending(parent):
        _publish(done, parent)


def _note_if_ended(name: str) -> bool:
    """Print a note about a sweep that had ended. Returns whether none of its trials is left to run."""
    from ganseg_dist.studies.study import find_study

    study = find_study(name, "sweep")
    if study is None or len(study.results()) < len(study.trial_names):
        return False
    failed = len(study.remaining())
    left = f"{counted(failed, 'trial')} that failed will be tried again" if failed else "no trial is left"
    show.err.print(f"note: {name} had ended before, and {left}; another sweep needs another name")
    return not failed


def _validate_choice(option: str, value: str, choices: tuple[str, ...]) -> Any:
    if value not in choices:
        raise ConfigError(f"{option} {value}: is not known; choose among {', '.join(choices)}")
    return value


@contextmanager
def _trial_progress(trials: int) -> Iterator[Any]:
    """A progress bar over the trials, and a line for each that ends."""
    with show.bar("trials") as advance:
        advance(0, trials)

        def watch(trial: TrialResult, done: int) -> None:
            show.err.print(f"{trial.name}  {_describe_trial(trial)}")
            advance(done, trials)

        yield watch


def _describe_trial(trial: TrialResult) -> str:
    """Such as `val/dice_wt 0.712 after 12 epochs, stopped: the scheduler stopped it; ...`."""
    scores = "  ".join(f"{name} {value:.4g}" for name, value in trial.scores.items()) or "no score"
    reason = f": {trial.reason}" if trial.reason else ""
    epochs = f" after {counted(trial.epochs, 'epoch')}" if trial.epochs else ""
    return f"{scores}{epochs}, {trial.state}{reason}"


def _publish(done: Sweep, parent: TrackedRun) -> None:
    """Write tables, figures and the best values to the folder, to MLflow and to the terminal."""
    from ganseg_dist.studies.experiments.table import markdown_table
    from ganseg_dist.studies.sweeps.publish import chosen_by, save_sweep, table_of, write_page
    from ganseg_dist.tracking.results import log_experiment

    files = (*save_sweep(done), write_page(done))
    header, rows = table_of(done)
    best = done.best
    scores = {f"best/{name}": value for name, value in best.scores.items()}
    log_experiment(parent, scores, markdown_table(header, rows), files, {"ganseg.best": best.name})
    patients = counted(done.patients, "validation patient")
    show.table(f"{done.run.name}: scores of {patients}, best first", header, rows)
    show.echo(f"best: {best.name}, {_values_text(best.values)}")
    if len(done.metrics) > 1:
        show.echo(f"chosen: {chosen_by(done)}")
    states = Counter(trial.state for trial in done.trials)
    show.echo(f"trials: {', '.join(f'{count} {state}' for state, count in states.items())}")
    show.echo(f"written: {', '.join(map(str, files))}")
    privacy = done.request.get("privacy")
    if privacy:
        show.echo(f"privacy: {privacy}")
    show.echo(f"next: {done.next_command}")


def _values_text(values: Mapping[str, Any]) -> str:
    from ganseg_dist.studies.sweeps.sweep import setting_text

    return " ".join(
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={setting_text(value)}"
        for name, value in values.items()
    )

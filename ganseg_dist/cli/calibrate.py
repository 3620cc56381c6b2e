"""`ganseg calibrate`: choose operating points on validation patients."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ganseg_dist.cli import show
from ganseg_dist.cli.words import LAYOUT_HELP, RUN_HELP

if TYPE_CHECKING:
    from ganseg_dist.runs import Run


def calibrate(
    run: str = typer.Argument(metavar="RUN", help=RUN_HELP),
    data: Path | None = typer.Option(
        None, metavar="DATA", help="The cohort it was trained on, where that has moved; the run knows where it was."
    ),
    layout: str | None = typer.Option(None, metavar="NAME", help=LAYOUT_HELP),
    gpu: bool = typer.Option(False, "--gpu", help="Predict on a GPU."),
) -> None:
    """Choose a run's thresholds on its validation patients.

    Each region's probability threshold by Dice, and the threshold that calls a slice abnormal by Youden's J.
    They are stored in the model: evaluate, predict and export use them from then on.
    """
    from ganseg_dist.cli.models import cases_of_part, finished_run
    from ganseg_dist.data.readers import read_cohort
    from ganseg_dist.errors import ConfigError
    from ganseg_dist.inference.calibration import calibrate as choose
    from ganseg_dist.inference.calibration import save_thresholds
    from ganseg_dist.inference.predictor import Predictor
    from ganseg_dist.tracking.results import log_calibration

    found = finished_run(run)
    if found.config().system.task == "classification":
        raise ConfigError(f"{found.name}: classifies, and a classifier has no threshold to choose; {_evaluates(found)}")
    asked = found.description().get("request", {})
    if data is None and "data" not in asked:
        raise ConfigError(f"{found.name}: does not say where its data was; give --data DATA")
    cohort = read_cohort(data or Path(asked["data"]), layout or asked.get("layout"))
    cases = cases_of_part(found, cohort, "validation")
    predictor = Predictor.load(found.model, "cuda" if gpu else "cpu")
    with show.bar(f"Calibrating on {len(cases)} validation cases") as advance:
        thresholds, best = choose(predictor, cases, advance=advance)
    save_thresholds(found.model, thresholds)
    log_calibration(found)
    for region in predictor.regions:
        if region not in best:
            typer.echo(f"{region}: no validation case has it, so its threshold stays at {thresholds.of(region):.2f}")
            continue
        chosen = best[region]
        typer.echo(
            f"{region}: threshold {chosen.threshold:.2f}, validation Dice {chosen.dice:.3f} "
            f"(n {chosen.n} with the region)"
        )
    if thresholds.realism is not None:
        typer.echo(f"slice realism: abnormal below {thresholds.realism:.3f}")


def _evaluates(run: Run) -> str:
    """What to do with a classifier instead."""
    data = run.description().get("request", {}).get("data")
    command = f"ganseg evaluate {run.name} --data {'DATA' if data is None else shlex.quote(data)}"
    if len(run.config().data.classes or ()) == 2:
        return f"{command} chooses its operating point on validation patients"
    return f"of several classes the likeliest is said: {command}"

"""`ganseg calibrate`: choose operating points on validation patients."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ganseg_dist.cli import show
from ganseg_dist.cli.options import GPU, LABELS, LAYOUT, RUN
from ganseg_dist.errors import ConfigError

if TYPE_CHECKING:
    from ganseg_dist.runs import Run


def calibrate(
    run: str = RUN,
    data: Path | None = typer.Option(
        None, metavar="DATA", help="The cohort it was trained on, if that has moved from the recorded folder."
    ),
    layout: str | None = LAYOUT,
    labels: str | None = LABELS,
    gpu: bool = GPU,
    from_sweep: str | None = typer.Option(
        None,
        metavar="SWEEP",
        help="Take those that ganseg tune RUN --space thresholds found best; nothing is predicted.",
    ),
) -> None:
    """Choose a run's thresholds on its validation patients.

    Each region's probability threshold by Dice, and the threshold that calls a slice abnormal by Youden's J.
    They are stored in the model: evaluate, predict and export use them from then on.
    """
    from ganseg_dist.cli.models import segmenting_run, validation_cases, warn_of_few
    from ganseg_dist.cli.remote_runs import fetch_runs, fetch_sweep
    from ganseg_dist.evaluation.calibration import calibrate as choose
    from ganseg_dist.inference.model_folder import write_thresholds
    from ganseg_dist.inference.predictor import Predictor
    from ganseg_dist.tracking.results import log_calibration

    fetch_runs(run)
    trained = segmenting_run(run)
    if from_sweep is not None:
        if data or layout or labels or gpu:
            raise ConfigError(
                "--from-sweep: takes everything from the sweep; leave out --data, --layout, --labels and --gpu"
            )
        fetch_sweep(from_sweep)
        _apply_sweep(trained, from_sweep)
        log_calibration(trained)
        return
    cases = validation_cases(trained, data, layout, labels)
    predictor = Predictor.load(trained.model, "cuda" if gpu else "cpu")
    with show.bar(f"Calibrating on {len(cases)} validation cases") as advance:
        thresholds, best = choose(predictor, cases, advance=advance)
    write_thresholds(trained.model, thresholds)
    log_calibration(trained)
    for region in predictor.regions:
        if region not in best:
            show.echo(f"{region}: no validation case has it, so its threshold stays at {thresholds.of(region):.2f}")
            continue
        chosen = best[region]
        show.echo(
            f"{region}: threshold {chosen.threshold:.2f}, validation Dice {chosen.dice:.3f} "
            f"(n {chosen.n} with the region)"
        )
    if thresholds.realism is not None:
        show.echo(f"slice realism: abnormal below {thresholds.realism:.3f}")
    warn_of_few(thresholds.calibrated_on)


def _apply_sweep(run: Run, sweep: str) -> None:
    from ganseg_dist.cli.models import warn_of_few
    from ganseg_dist.inference.model_folder import read_thresholds, write_thresholds
    from ganseg_dist.studies.sweeps.publish import best_thresholds
    from ganseg_dist.studies.sweeps.thresholds import with_thresholds

    values, patients = best_thresholds(sweep, run)
    write_thresholds(run.model, with_thresholds(read_thresholds(run.model), values, patients))
    for name, value in values.items():
        show.echo(f"{name.removeprefix('threshold.')}: threshold {value:.2f}, of {sweep}")
    warn_of_few(patients)

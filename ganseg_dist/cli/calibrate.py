"""`ganseg calibrate`: choose operating points on validation patients."""

from __future__ import annotations

from pathlib import Path

import typer

from ganseg_dist.cli import show


def calibrate(
    run: str = typer.Argument(help="A run's name, folder or MLflow id."),
    data: Path | None = typer.Option(None, help="The cohort it was trained on; where it was, when not given."),
    layout: str | None = typer.Option(None, help="Layout by name; recognised when not given."),
    gpu: bool = typer.Option(False, "--gpu", help="Predict on a GPU."),
) -> None:
    """Choose each region's probability threshold by Dice, and the slice threshold by Youden's J, on validation.

    They are stored in the model: evaluate, predict and export use them from then on.
    """
    from ganseg_dist.cli.models import cases_of_part, finished_run
    from ganseg_dist.data.readers import read_cohort
    from ganseg_dist.inference.calibration import calibrate as choose
    from ganseg_dist.inference.calibration import save_thresholds
    from ganseg_dist.inference.predictor import Predictor

    found = finished_run(run)
    request = found.read("run.json")["request"]
    cohort = read_cohort(data or Path(request["data"]), layout or request["layout"])
    cases = cases_of_part(found, cohort, "validation")
    predictor = Predictor.load(found.model, "cuda" if gpu else "cpu")
    with show.bar(f"Calibrating on {len(cases)} validation cases") as advance:
        thresholds, best = choose(predictor, cases, advance=advance)
    save_thresholds(found.model, thresholds)
    for region, chosen in best.items():
        typer.echo(f"{region}: threshold {chosen.threshold:.2f}, validation Dice {chosen.dice:.3f} (n {chosen.n})")
    if thresholds.realism is not None:
        typer.echo(f"slice realism: abnormal below {thresholds.realism:.3f}")

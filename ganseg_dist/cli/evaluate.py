"""`ganseg evaluate`: scores on held-out patients, beside baselines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ganseg_dist.cli import show

if TYPE_CHECKING:
    from ganseg_dist.runs import Run


def evaluate(
    run: str = typer.Argument(help="A run's name, folder or MLflow id."),
    data: Path = typer.Option(..., help="The cohort it was trained on, or another one with --part all."),
    part: str = typer.Option("test", help="test, validation, or all (another cohort)."),
    beside: list[str] = typer.Option(
        [], help="Other runs to score on the same cases; the plain U-Net arm is found by itself."
    ),
    layout: str | None = typer.Option(None, help="Layout by name; recognised when not given."),
    gpu: bool = typer.Option(False, "--gpu", help="Predict on a GPU."),
) -> None:
    """Score a run on full volumes: Dice, IoU, HD95, lesion-wise scores, with 95% intervals over patients.

    Writes cases.csv, summary.json, thresholds.csv (the discriminator's table) and a gallery into the run, and
    shows a FLAIR threshold and the plain U-Net arm beside it.
    """
    from ganseg_dist.cli.models import cases_of_part, finished_run
    from ganseg_dist.data.readers import read_cohort
    from ganseg_dist.errors import ConfigError
    from ganseg_dist.inference.arms import Arm, FlairThreshold, ModelArm
    from ganseg_dist.inference.evaluation import evaluate as score
    from ganseg_dist.inference.evaluation import save_evaluation
    from ganseg_dist.inference.predictor import Predictor
    from ganseg_dist.tracking.results import log_evaluation

    if part not in ("test", "validation", "all"):
        raise ConfigError(f"--part {part}: expected test, validation or all")
    found = finished_run(run)
    cohort = read_cohort(data, layout)
    cases = cases_of_part(found, cohort, part)
    device = "cuda" if gpu else "cpu"
    predictor = Predictor.load(found.model, device)
    arms: list[Arm] = [ModelArm(found.name, "model", predictor)]
    for other in [finished_run(name) for name in beside] or _plain_arms(found):
        arms.append(ModelArm(other.name, "comparison", Predictor.load(other.model, device)))
    flair = FlairThreshold.fitted(cohort.of_patients(found.split().train), predictor.config.data)
    if flair is not None and "flair" in cohort.modalities:
        arms.append(flair)
    with show.bar(f"Scoring {len(cases)} {part} cases") as advance:
        result = score(arms, cases, part, advance=advance)
    summary = save_evaluation(found.evaluation(part), result, predictor)
    log_evaluation(found, part, summary)
    _print(summary)
    typer.echo(f"written: {found.evaluation(part)}")


def _plain_arms(run: Run) -> list[Run]:
    """The newest finished plain U-Net run on the same data, split and seed, if there is one."""
    from ganseg_dist.runs import all_runs

    if not run.config().system.gan:
        return []
    for other in all_runs():
        if (
            other.finished
            and not other.config().system.gan
            and other.split() == run.split()
            and other.read("data.json")["cases"] == run.read("data.json")["cases"]
        ):
            return [other]
    return []


def _print(summary: dict[str, Any]) -> None:
    unit = summary["distance_unit"]
    regions = sorted({name.split("/")[0] for name in summary["rows"][0]["scores"]}, key=["wt", "tc", "et"].index)
    for region in regions:
        names = ["dice", f"hd95_{unit}", "lesion_dice", "sensitivity"]
        rows = [
            [row["name"], *(_interval(row["scores"].get(f"{region}/{name}")) for name in names)]
            for row in summary["rows"]
            if f"{region}/dice" in row["scores"]
        ]
        title = f"{region.upper()} on {summary['n_patients']} {summary['part']} patients (mean, 95% interval)"
        show.table(title, ["", *names], rows)
    for pair in summary["paired"]:
        difference = pair["difference"]
        verdict = "" if difference["low"] > 0 or difference["high"] < 0 else "; no difference beyond its interval"
        typer.echo(
            f"{pair['a']} less {pair['b']}, {pair['score']}: {difference['mean']:+.3f} "
            f"[{difference['low']:+.3f}, {difference['high']:+.3f}], n {difference['n']}{verdict}"
        )
    detection, healthy = summary["detection"], summary["healthy"]
    if detection is not None and detection["auroc"] is not None:
        areas = f"AUROC {detection['auroc']:.3f}, AUPRC {detection['auprc']:.3f}"
        typer.echo(f"discriminator on {detection['n_slices']} slices: {areas}")
    if healthy is not None:
        typer.echo(f"healthy holes, L1: {healthy['hole_l1']:.4f} against biharmonic {healthy['biharmonic_l1']:.4f}")
        if "feedback" in healthy:
            shown = ", ".join(f"{name} {value:.3f}" for name, value in healthy["feedback"].items() if name != "n")
            carries = "carries a signal" if healthy["signal"] else "carries no clear signal"
            typer.echo(f"adversarial feedback {carries}: L_adv of masks {shown}")


def _interval(value: dict[str, float] | None) -> str:
    return "-" if value is None else f"{value['mean']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"

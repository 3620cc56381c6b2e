"""`ganseg evaluate`: scores on held-out patients, compared with baselines."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ganseg_dist.cli import show
from ganseg_dist.cli.options import GPU, LABELS, LAYOUT, RUN
from ganseg_dist.config import RunConfig
from ganseg_dist.errors import ConfigError, RunError
from ganseg_dist.plural import counted

if TYPE_CHECKING:
    from ganseg_dist.evaluation.results import Summary
    from ganseg_dist.report.section import Section
    from ganseg_dist.runs import Run


def evaluate(
    run: str = RUN,
    data: Path = typer.Option(..., metavar="DATA", help="The cohort it was trained on; with --part all, another one."),
    part: str = typer.Option(
        "test", metavar="PART", help="Patients to score: test, validation, or all of another cohort."
    ),
    beside: list[str] = typer.Option(
        [],
        metavar="RUN",
        help="Another run to score on the same cases; repeatable. The plain U-Net trained on the same split, "
        "if there is one, is found without it.",
    ),
    layout: str | None = LAYOUT,
    labels: str | None = LABELS,
    gpu: bool = GPU,
) -> None:
    """Score a run on held-out patients, beside baselines.

    Dice, IoU, HD95 and lesion-wise scores on full volumes, with 95% intervals over patients; beside them a
    threshold on FLAIR and the plain U-Net. HD95 is in mm, of pictures without spacing in pixels.

    Replaces RUN/evaluation/PART: cases.csv, summary.json, thresholds.csv and a gallery for ganseg report.
    """
    from ganseg_dist.cli.classification import evaluate_classes
    from ganseg_dist.cli.models import cases_of_part, check_no_leak, finished_run, stated_labels, warn_of_few
    from ganseg_dist.cli.remote_runs import fetch_runs
    from ganseg_dist.data.readers import read_cohort
    from ganseg_dist.evaluation.arms import Arm, FlairThreshold, ModelArm
    from ganseg_dist.evaluation.segmentation import evaluate as score
    from ganseg_dist.evaluation.segmentation import save_evaluation
    from ganseg_dist.inference.predictor import Predictor
    from ganseg_dist.report.section import section_of
    from ganseg_dist.tracking.results import log_evaluation

    if part not in ("test", "validation", "all"):
        raise ConfigError(f"--part {part}: expected test, validation or all")
    fetch_runs(run, *beside)
    _check_not_folds(run)
    trained = finished_run(run)
    cohort = read_cohort(data, layout, labels or (None if part == "all" else stated_labels(trained)))
    if trained.config().system.task == "classification":
        if beside:
            raise ConfigError("--beside: classifiers are compared by ganseg experiment; leave it out")
        evaluate_classes(trained, Predictor.load(trained.model, "cuda" if gpu else "cpu"), cohort, part)
        return
    others = [_segmenter(name, trained) for name in beside]
    cases = cases_of_part(trained, cohort, part)
    device = "cuda" if gpu else "cpu"
    predictor = Predictor.load(trained.model, device)
    arms: list[Arm] = [ModelArm(trained.name, "model", predictor)]
    names = [trained.name, *(other.name for other in others)]
    if len(set(names)) < len(names):
        raise ConfigError(f"--beside {', '.join(beside)}: two runs have one name; name each run once")
    for other in others:
        check_no_leak(other, cases, f"compare runs of one split{'' if part == 'test' else ', with --part test'}")
    for other in others or _plain_arms(trained):
        arms.append(ModelArm(other.name, "comparison", Predictor.load(other.model, device)))
    flair = FlairThreshold.fitted(cohort.of_patients(trained.split().train), predictor.config.data)
    if flair is not None and "flair" in cohort.modalities:
        arms.append(flair)
    with show.bar(f"Scoring {len(cases)} {part} cases") as advance:
        result = score(arms, cases, part, advance=advance, warn=show.warn)
    if not predictor.thresholds.calibrated_on:
        show.err.print(
            f"note: {trained.name} is at its default thresholds; choose them first with: "
            f"ganseg calibrate {trained.name}"
        )
    else:
        warn_of_few(predictor.thresholds.calibrated_on)
    summary = save_evaluation(trained.evaluation(part), result, predictor)
    log_evaluation(trained, part, summary.rows[0].scores)
    _print(summary, section_of(trained.config()))
    show.echo(f"written: {trained.evaluation(part)}")


def _segmenter(reference: str, run: Run) -> Run:
    """The finished run to compare with. Raises ConfigError for a classifier, which has no Dice to compare."""
    from ganseg_dist.cli.models import finished_run

    other = finished_run(reference)
    if other.config().system.task == "classification":
        raise ConfigError(
            f"--beside {other.name}: classifies, and {run.name} segments: they cannot be compared; give a segmenter"
        )
    return other


def _check_not_folds(reference: str) -> None:
    """Raises RunError for folds, which together have no held-out patient."""
    from ganseg_dist.studies.experiments.splits import check_folds_finished
    from ganseg_dist.studies.study import find_study

    experiment = find_study(reference, "experiment")
    if experiment is not None and experiment.kind == "folds":
        check_folds_finished(experiment)  # raises where a fold is unfinished, as there is no table yet
        raise RunError(
            f"{experiment.name}: every patient of its cohort was some fold's training patient; the scores of each on "
            f"those it never saw are in {experiment.folder / 'table.csv'}, and for another cohort {experiment.run_hint}"
        )


def _plain_arms(run: Run) -> list[Run]:
    """The newest finished plain U-Net run of the same config, data and split, if there is one."""
    from ganseg_dist.runs import all_runs

    if not run.config().system.synthesises:
        return []
    cases, split, control = run.data().cases, run.split(), _controlled(run)
    for other in all_runs():
        with suppress(RunError):  # skip damaged runs
            if (
                other.finished
                and not other.config().system.synthesises
                and _controlled(other) == control
                and other.split() == split
                and other.data().cases == cases
            ):
                return [other]
    return []


def _controlled(run: Run) -> RunConfig:
    config = run.config()
    return config.model_copy(update={"system": config.system.control()})


def _print(summary: Summary, section: Section | None) -> None:
    from ganseg_dist.evaluation.plausibility import KINDS
    from ganseg_dist.metrics.registry import find_score
    from ganseg_dist.report.score_text import direction, score_label

    unit = summary.distance_unit
    regions = sorted({name.split("/")[0] for name in summary.rows[0].scores}, key=["wt", "tc", "et"].index)
    for region in regions:
        names = ["dice", f"hd95_{unit}", "lesion_dice", "sensitivity"]
        rows = [
            [
                row.name,
                *(show.interval(row.scores.get(f"{region}/{name}"), find_score(name).decimals) for name in names),
            ]
            for row in summary.rows
            if f"{region}/dice" in row.scores
        ]
        title = f"{region.upper()} on {summary.n_patients} {summary.part} patients (mean, 95% interval)"
        show.table(title, ["", *(f"{score_label(name)} {direction(name)}" for name in names)], rows)
        if region in summary.absent:
            show.echo(
                f"no {summary.part} patient has {region.upper()}: sensitivity is undefined, and Dice is 1 where "
                "nothing was predicted, else 0"
            )
    for kind, count in summary.implausible.items():
        show.echo(f"{counted(count, 'case')} of {summary.n_cases} with a lesion {KINDS[kind]}: look at their masks")
    for pair in summary.paired:
        difference = pair.difference
        verdict = {True: "", False: "; no difference shown", None: "; too few patients to compare"}[pair.differs]
        show.echo(
            f"{pair.a} less {pair.b}, {pair.score}: {difference.mean:+.3f} "
            f"[{difference.low:+.3f}, {difference.high:+.3f}], n {difference.n}{verdict}"
        )
    detection = summary.detection
    if detection is not None and detection.auroc is not None:
        areas = f"AUROC {detection.auroc:.3f}, AUPRC {detection.auprc:.3f}"
        if detection.auroc <= 0.5:
            areas += ": no better than chance, do not use its slice threshold"
        show.echo(f"discriminator on {detection.n_slices} slices: {areas}")
    if section is not None and summary.evidence is not None:
        for line in section.lines(summary.evidence):
            show.echo(line)

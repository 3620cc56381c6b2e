"""`ganseg evaluate` and `ganseg predict` for a classifier."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ganseg_dist.cli import show
from ganseg_dist.cli.models import cases_of_part, each_scan, read_slices, warn_of_few
from ganseg_dist.config import RunConfig
from ganseg_dist.data.batch import BACKGROUND
from ganseg_dist.data.clusters import clustered_channel, elbow
from ganseg_dist.data.cohort import Case, Cohort
from ganseg_dist.data.preprocess import prepare_scan
from ganseg_dist.data.scan import Scan
from ganseg_dist.errors import DataError
from ganseg_dist.evaluation.classification import classify, classify_prepared, save_classification
from ganseg_dist.evaluation.results import ClassSummary, ImageRow, write_images
from ganseg_dist.inference.predictor import Predictor
from ganseg_dist.runs import Run
from ganseg_dist.sampling import evenly_spaced
from ganseg_dist.tracking.results import log_evaluation

ELBOW_IMAGES = 24
"""Training slices for the elbow curve, whose bend a few slices already show."""
LINES_SHOWN = 20
HEADER = "case,patient,site,slice,truth,predicted"
"""First line of a classes.csv, up to the columns of probabilities."""


def evaluate_classes(run: Run, predictor: Predictor, cohort: Cohort, part: str) -> None:
    """Score a classifier on one part of its split and print what it scored.

    With two classes also the sensitivity at a threshold of fixed specificity on the validation patients. A system that
    starts from k-means also gets the elbow curve of its training images.

    Raises DataError when no image's class is known.
    """
    classes, config = predictor.config.data.classes or (), predictor.config
    cases = cases_of_part(run, cohort, part)

    def classify_cases(cases_to_classify: tuple[Case, ...], title: str) -> tuple[ImageRow, ...]:
        slices = read_slices(cases_to_classify, config, f"Reading the {title}")
        with show.bar(f"Classifying the {title}") as advance:
            return classify(predictor.system, slices, classes, device=predictor.device, advance=advance)

    validation: tuple[ImageRow, ...] = ()
    if part == "test" and len(classes) == 2 and run.split().validation:
        validation = classify_cases(cases_of_part(run, cohort, "validation"), "validation cases")
    rows = classify_cases(cases, f"{part} cases")
    if all(row.truth is None for row in rows):
        raise DataError(f"{cohort.root}: has none of {run.name}'s classes, {', '.join(classes)}; give data that does")
    elbow_of = [] if config.data.clusters is None else _elbow(run, cohort, config)
    summary = save_classification(run.evaluation(part), rows, classes, validation, elbow_of)
    log_evaluation(run, part, summary.scores.intervals)
    _print(run, part, summary)
    show.echo(f"written: {run.evaluation(part)}")


def _elbow(run: Run, cohort: Cohort, config: RunConfig) -> list[tuple[int, float]]:
    """(k, within-cluster sum of squares) of some training images; empty where the cohort holds none."""
    used = {case.id for case in run.data().cases}
    available = [case for case in cohort.of_patients(run.split().train) if case.id in used]
    if not available:
        return []
    slices = read_slices(
        [available[index] for index in evenly_spaced(len(available), ELBOW_IMAGES)], config, "Reading training images"
    )
    modalities = config.data.modalities or ()
    image, _ = slices.of_modalities(modalities).read(evenly_spaced(len(slices), ELBOW_IMAGES))
    foreground = np.asarray((image > BACKGROUND).any(axis=1))
    return list(enumerate(elbow(list(clustered_channel(image, modalities)), list(foreground)), start=1))


def predict_classes(predictor: Predictor, cases: tuple[Case, ...], out: Path) -> list[str]:
    """Write OUT/classes.csv, a line per slice with foreground; returns a message for each case that cannot be read.

    Raises DataError where classes.csv exists and is no earlier prediction.
    """
    _check_table(out / "classes.csv")
    classes = predictor.config.data.classes or ()
    rows: list[ImageRow] = []

    def classify_scan(case: Case, scan: Scan) -> None:
        rows.extend(classify_prepared(predictor, case, prepare_scan(scan, predictor.config.data, ())))

    problems = each_scan("Classifying", cases, predictor.modalities, classify_scan)
    if rows:
        write_images(out / "classes.csv", rows, classes)
        for row in rows[:LINES_SHOWN]:
            where = f"{row.case}, slice {row.slice + 1}"
            show.echo(f"{where}: {row.predicted} ({max(row.probability):.3f})")
        if len(rows) > LINES_SHOWN:
            show.echo(f"... {len(rows) - LINES_SHOWN} more")
        show.echo(str(out / "classes.csv"))
    return problems


def _check_table(file: Path) -> None:
    if not file.is_file():
        return
    with file.open(encoding="utf-8", errors="replace") as text:
        is_prediction = text.readline().startswith(HEADER)
    if not is_prediction:
        raise DataError(f"{file}: exists and is no earlier prediction; choose another --out")


def _print(run: Run, part: str, summary: ClassSummary) -> None:
    scores = summary.scores
    header = ["class", "images", "precision", "recall", "F1"]
    measures = ("precision", "recall", "f1")
    rows = [
        [name, str(each.n_images), *(show.interval(getattr(each, measure)) for measure in measures)]
        for name, each in scores.classes.items()
    ]
    rows.append(["macro", str(scores.n_images), *(show.interval(getattr(scores, measure)) for measure in measures)])
    title = f"{run.name} on {scores.n_patients} {part} patients (95% intervals over patients)"
    show.table(title, header, rows)
    for name in ("accuracy", "balanced_accuracy", "auroc", "auprc"):
        if name in scores.intervals:
            show.echo(f"{name.replace('_', ' ')} {show.interval(scores.intervals[name])}")
    point = summary.operating_point
    if point is not None:
        show.echo(
            f"at the threshold of {point.validated_specificity:.0%} specificity on validation patients: "
            f"sensitivity {show.interval(point.sensitivity)}, specificity {show.interval(point.specificity)}"
        )
        warn_of_few(point.calibrated_on, "threshold")

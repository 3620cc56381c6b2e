"""A classifier's results on one part of the data, in the fields that classes.html.j2 shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ganseg_dist.config import RunConfig
from ganseg_dist.evaluation.results import ClassSummary, ImageRow, ValidatedPoint
from ganseg_dist.metrics.classification import ClassificationScores
from ganseg_dist.metrics.threshold import few_patients_warning
from ganseg_dist.plots.lines import elbow_chart
from ganseg_dist.plots.roc import Dot, calibration_chart
from ganseg_dist.plots.save import svg
from ganseg_dist.plural import counted
from ganseg_dist.report import score_text
from ganseg_dist.report.reading import Classification
from ganseg_dist.report.section import Chart, KeyFigure


@dataclass(frozen=True, slots=True)
class ConfusionCell:
    """How many images of one true class got one predicted class."""

    predicted: str
    n_images: int
    share: float | None
    """Fraction of the true class's images; None where the class has no images."""
    right: bool


@dataclass(frozen=True, slots=True)
class ConfusionRow:
    """The images of one true class, by predicted class."""

    truth: str
    cells: tuple[ConfusionCell, ...]
    n_images: int


@dataclass(frozen=True, slots=True)
class Mistake:
    """An image with a wrong predicted class."""

    image: ImageRow
    of_predicted: float
    """Probability of the predicted class."""
    of_truth: float
    """Probability of the true class."""


def class_view(
    classification: Classification, config: RunConfig | None, *, patients_known: bool = True
) -> dict[str, Any]:
    """What classes.html.j2 shows of one part; without known patients each image counts as one."""
    summary, scores, point = (
        classification.summary,
        classification.summary.scores,
        classification.summary.operating_point,
    )
    subject = "patient" if patients_known else "image"
    return {
        "part": classification.part,
        "summary": summary,
        "images": classification.images,
        "key_scores": list(_key_scores(summary)),
        "most_frequent": max(each.n_images for each in scores.classes.values()) / scores.n_images,
        "operating_point": _describe_operating_point(point, summary.classes, subject) if point else None,
        "confusion": confusion_rows(summary),
        "calibration": _calibration(scores),
        "mistakes": mistakes(classification.images, summary.classes),
        "elbow": _elbow(summary.elbow, config) if summary.elbow else None,
    }


def confusion_rows(summary: ClassSummary) -> tuple[ConfusionRow, ...]:
    """The confusion matrix by true class, each cell with its share of the row."""
    return tuple(
        ConfusionRow(
            truth,
            tuple(
                ConfusionCell(called, n, n / sum(counts) if sum(counts) else None, called == truth)
                for called, n in zip(summary.classes, counts, strict=True)
            ),
            sum(counts),
        )
        for truth, counts in zip(summary.classes, summary.scores.confusion, strict=True)
    )


def mistakes(images: Sequence[ImageRow], classes: Sequence[str]) -> list[Mistake]:
    """Wrongly classified images, by falling probability of the predicted class, then by case and slice."""
    wrong = [
        Mistake(image, *(image.probability[classes.index(name)] for name in (image.predicted, image.truth)))
        for image in images
        if image.truth is not None and image.predicted != image.truth
    ]
    return sorted(wrong, key=lambda mistake: (-mistake.of_predicted, mistake.image.case, mistake.image.slice))


def _key_scores(summary: ClassSummary) -> Iterator[KeyFigure]:
    scores, point = summary.scores, summary.operating_point
    yield KeyFigure("Accuracy", scores.accuracy)
    yield KeyFigure("Balanced accuracy", scores.balanced_accuracy)
    yield KeyFigure("Macro F1", scores.f1)
    if scores.auroc is not None:
        yield KeyFigure("AUROC", scores.auroc)
    if point is not None and point.sensitivity is not None:
        yield KeyFigure(f"Sensitivity at {point.validated_specificity:.0%} specificity", point.sensitivity)


def _describe_operating_point(point: ValidatedPoint, classes: Sequence[str], subject: str) -> str:
    """The threshold, the patients it was chosen on, and the sensitivity and specificity that it gives here."""
    negative, positive = classes
    rates = " and ".join(
        f"{name} {score_text.number(rate.mean)} ({score_text.between(rate)}, n = {rate.n})"
        for name, rate in (("sensitivity", point.sensitivity), ("specificity", point.specificity))
        if rate is not None
    )
    chosen_on = counted(point.calibrated_on, f"validation {subject}")
    return (
        f"Called {positive} from a probability of {score_text.number(point.threshold)} on, the lowest that kept "
        f"{point.validated_specificity:.0%} specificity on {chosen_on}: "
        f"here {rates}; of {positive} {point.tp} found and {point.fn} missed, "
        f"of {negative} {point.fp} called {positive} and {point.tn} not."
        f"{f' The threshold was {doubt}.' if (doubt := few_patients_warning(point.calibrated_on)) else ''}"
    )


def _calibration(scores: ClassificationScores) -> Chart:
    dots = [
        Dot(each.confidence, each.accuracy, each.n_images)
        for each in scores.calibration
        if each.confidence is not None and each.accuracy is not None
    ]
    error = scores.expected_calibration_error
    bins = "; ".join(f"{dot.x:.2f} and {dot.y:.2f} of {counted(dot.weight, 'image')}" for dot in dots)
    return Chart(
        "Calibration",
        svg(
            calibration_chart(dots, note=f"ECE {score_text.number(error.mean)}"),
            f"Confidence and accuracy by bin of confidence: {bins}.",
        ),
        f"A dot a bin of confidence, its area by images; on the dashed line, confidence is accuracy, and below it the "
        f"model is overconfident. Expected calibration error (ECE) {score_text.number(error.mean)} "
        f"({score_text.between(error)}, n = {error.n}); lower is better.",
    )


def _elbow(points: Sequence[tuple[int, float]], config: RunConfig | None) -> Chart:
    chosen = config.data.clusters if config is not None else None
    values = ", ".join(f"{value:.4g} for {k}" for k, value in points)
    caption = "Of the intensities of training images; where the line bends, further clusters explain little more."
    if chosen is not None:
        caption += f" This run's data.clusters is {chosen}."
    if config is not None and config.data.cluster_by == "coordinates":
        caption += " Its clusters are of places in the plane (data.cluster_by), which this line does not show."
    return Chart(
        "Number of clusters",
        svg(elbow_chart(points, chosen=chosen), f"Within-cluster sum of squares by number of clusters: {values}."),
        caption,
    )

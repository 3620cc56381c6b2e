"""Reads a classifier's evaluation for the report: summary.json and images.csv."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import TypeAdapter, model_validator

from ganseg_dist.errors import RunError
from ganseg_dist.files import read_csv
from ganseg_dist.report.reading import Interval, Record, finite, read_record
from ganseg_dist.runs import Run


class ClassScores(Record):
    """Scores of one class against all others; a class without images has none."""

    precision: Interval | None
    recall: Interval | None
    f1: Interval | None
    n_images: int
    n_predicted: int


class CalibrationBin(Record):
    """Images whose highest probability lies in (low, high]; an empty bin has neither confidence nor accuracy."""

    low: float
    high: float
    confidence: float | None
    accuracy: float | None
    n_images: int


class Scores(Record):
    """Everything measured on the images whose class is known."""

    accuracy: Interval
    balanced_accuracy: Interval
    precision: Interval
    """Macro-averaged, as are recall and f1."""
    recall: Interval
    f1: Interval
    expected_calibration_error: Interval
    auroc: Interval | None
    """For two classes only, with the second as the positive one; likewise auprc."""
    auprc: Interval | None
    classes: dict[str, ClassScores]
    confusion: tuple[tuple[int, ...], ...]
    """A row for each true class, a column for each predicted one."""
    calibration: tuple[CalibrationBin, ...]
    n_images: int
    n_patients: int


class OperatingPoint(Record):
    """Detection of the second of two classes at a threshold that was chosen on validation patients."""

    validated_specificity: float
    calibrated_on: int
    """Number of validation patients."""
    threshold: float
    sensitivity: Interval | None
    specificity: Interval | None
    tp: int
    fn: int
    fp: int
    tn: int


class ClassSummary(Record):
    """evaluation/PART/summary.json of a classifier."""

    classes: tuple[str, ...]
    n_images: int
    n_known: int
    """Images whose class is known; only these are scored."""
    scores: Scores
    operating_point: OperatingPoint | None = None
    elbow: tuple[tuple[int, float], ...] = ()
    """(k, within-cluster sum of squares) of training images, for systems that start from k-means."""

    @model_validator(mode="after")
    def _of_one_size(self) -> Self:
        sides = {len(self.classes), len(self.scores.confusion), *map(len, self.scores.confusion)}
        if len(sides) > 1 or set(self.scores.classes) != set(self.classes):
            raise ValueError("classes, scores.classes and scores.confusion differ in their classes")
        return self


@dataclass(frozen=True, slots=True)
class ClassifiedImage:
    """One line of images.csv."""

    case: str
    slice: int
    """Counted from 0."""
    truth: str | None
    """None where it is not known."""
    predicted: str
    probability: dict[str, float]
    """By class."""


@dataclass(frozen=True, slots=True)
class Classification:
    """The results of a classifier on one part of the data."""

    part: str
    summary: ClassSummary
    images: tuple[ClassifiedImage, ...]


def read_classification(run: Run, part: str) -> Classification:
    """Read a part's files. Raises RunError naming the file and the field that cannot be used."""
    summary = read_record(run, f"evaluation/{part}/summary.json", TypeAdapter(ClassSummary))
    if summary is None:
        raise RunError(f"{run.evaluation(part)}: has lost its summary.json; evaluate again")
    return Classification(part, summary, _images(run.evaluation(part) / "images.csv", summary.classes))


def _images(path: Path, classes: tuple[str, ...]) -> tuple[ClassifiedImage, ...]:
    if not path.exists():
        return ()
    try:
        return tuple(
            ClassifiedImage(
                line["case"],
                int(line["slice"]),
                _class_name(classes, line["truth"]) if line["truth"] else None,
                _class_name(classes, line["predicted"]),
                {name: finite(line[f"p({name})"]) for name in classes},
            )
            for line in read_csv(path)
        )
    except (OSError, KeyError, ValueError) as error:
        raise RunError(f"{path}: cannot be read ({error}); evaluate again") from None


def _class_name(classes: tuple[str, ...], name: str) -> str:
    if name not in classes:
        raise ValueError(f"{name!r} is not among its classes")
    return name

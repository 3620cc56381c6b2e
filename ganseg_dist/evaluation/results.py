"""The files that evaluation writes into runs/NAME/evaluation/PART, for reports, tables, tracking and commands.

Scores are keyed `region/score`; their units, bounds and directions are in `metrics/registry.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from pydantic import model_validator

from ganseg_dist.atomic import write_csv
from ganseg_dist.errors import RunError
from ganseg_dist.files import read_csv
from ganseg_dist.metrics.classification import ClassificationScores, OperatingPoint
from ganseg_dist.metrics.detection import ThresholdRow
from ganseg_dist.metrics.statistics import Interval, PairedComparison
from ganseg_dist.records import Record

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Extended = TypeVar("Extended")
Row = TypeVar("Row")

DECIMALS = 6
"""Of scores and probabilities in CSV files."""

ArmKind = Literal["model", "comparison", "baseline"]


def extended(kind: type[Extended], base: DataclassInstance, **more: Any) -> Extended:
    """An instance of a dataclass, from the fields of its base's instance and the fields that it adds."""
    return kind(**{field.name: getattr(base, field.name) for field in fields(base)}, **more)


class ArmScores(Record):
    """One segmenter: the run itself, or a method that it is compared with."""

    name: str
    kind: ArmKind
    n: int
    """Cases."""
    scores: dict[str, Interval]
    """Means over patients; n counts patients."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmDifference(PairedComparison):
    """Arm a less arm b in one score."""

    score: str
    a: str
    b: str


class Detection(Record):
    """Detection of abnormal slices by the discriminator: a slice is abnormal if score < threshold."""

    auroc: float | None
    """In [0, 1]; None, like `auprc`, where all slices are of one kind."""
    auprc: float | None
    n_slices: int
    n_abnormal: int
    score: str
    """How a slice's score is made of its patches' realism, such as mean."""
    chosen: float | None
    """Calibrated threshold; None without one."""
    rows: tuple[ThresholdRow, ...]
    """By rising threshold."""
    roc: tuple[tuple[float, float], ...]
    """(false positive rate, true positive rate); empty where all slices are of one kind."""


class Summary(Record):
    """summary.json of a segmenter."""

    part: str
    n_cases: int
    n_patients: int
    distance_unit: Literal["mm", "px"]
    absent: tuple[str, ...]
    """Regions that no case has; their sensitivity is undefined."""
    implausible: dict[str, int]
    """Cases whose predicted lesion is implausible, by the key of `plausibility.KINDS`."""
    rows: tuple[ArmScores, ...]
    """The run first."""
    paired: tuple[ArmDifference, ...]
    """The run less each other arm."""
    detection: Detection | None
    """None without a discriminator."""
    evidence: dict[str, Any] | None
    """Measured by the system's evidence function of its GAN; None where it has none."""
    thresholds: dict[str, float]
    """Probability at which each region's mask begins."""
    calibrated_on: int
    """Validation patients that the thresholds were chosen on; 0: none, they are the defaults."""

    @property
    def model(self) -> ArmScores | None:
        """The run's row."""
        return next((row for row in self.rows if row.kind == "model"), None)

    @property
    def regions(self) -> tuple[str, ...]:
        """Regions that are scored, in the order of the scores."""
        return tuple(dict.fromkeys(score.partition("/")[0] for row in self.rows for score in row.scores))


@dataclass(frozen=True, slots=True)
class CaseRow:
    """A line of cases.csv: the scores of one arm on one case."""

    case: str
    patient: str
    site: str
    scores: dict[str, float]
    """Without those that are undefined for this case."""


def write_cases(file: Path, rows: Sequence[CaseRow]) -> None:
    """Write a cases.csv. Raises GansegError when the file cannot be written."""
    write_csv(file, [_plain_fields(row) | _rounded(row.scores) for row in rows])


def read_cases(file: Path) -> tuple[CaseRow, ...]:
    """The lines of a cases.csv; none where it is missing. Raises RunError naming the file where one is damaged."""

    def case_row(line: dict[str, str]) -> CaseRow:
        case, patient, site = (line.pop(name) for name in ("case", "patient", "site"))
        return CaseRow(case, patient, site, {name: _finite(value) for name, value in line.items() if value})

    return _read_lines(file, case_row)


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidatedPoint(OperatingPoint):
    """Detection of the second of two classes at a threshold that was chosen on validation patients."""

    validated_specificity: float
    """Lowest specificity that the threshold had to keep on validation patients, in [0, 1]."""
    calibrated_on: int
    """Number of validation patients."""


class ClassSummary(Record):
    """summary.json of a classifier."""

    classes: tuple[str, ...]
    n_images: int
    n_known: int
    """Images whose class is known; only these are scored."""
    scores: ClassificationScores
    operating_point: ValidatedPoint | None
    elbow: tuple[tuple[int, float], ...] = ()
    """(k, within-cluster sum of squares) of training images, for systems that start from k-means."""

    @model_validator(mode="after")
    def _of_one_size(self) -> Self:
        sides = {len(self.classes), len(self.scores.confusion), *map(len, self.scores.confusion)}
        if len(sides) > 1 or set(self.scores.classes) != set(self.classes):
            raise ValueError("classes, scores.classes and scores.confusion differ in their classes")
        return self


@dataclass(frozen=True, slots=True)
class ImageRow:
    """A line of images.csv: one slice with its true and its predicted class."""

    case: str
    patient: str
    site: str
    slice: int
    """Counted from 0."""
    truth: str | None
    """None where it is not known."""
    predicted: str
    probability: tuple[float, ...]
    """Of each class, in the order of the classes."""


def write_images(file: Path, rows: Sequence[ImageRow], classes: Sequence[str]) -> None:
    """Write an images.csv. Raises GansegError when the file cannot be written."""
    names = [f"p({name})" for name in classes]
    write_csv(file, [_plain_fields(row) | _rounded(dict(zip(names, row.probability, strict=True))) for row in rows])


def read_images(file: Path, classes: Sequence[str]) -> tuple[ImageRow, ...]:
    """The lines of an images.csv; none where it is missing. Raises RunError naming the file where one is damaged."""

    def image_row(line: dict[str, str]) -> ImageRow:
        return ImageRow(
            line["case"],
            line["patient"],
            line["site"],
            int(line["slice"]),
            _class_name(classes, line["truth"]) if line["truth"] else None,
            _class_name(classes, line["predicted"]),
            tuple(_finite(line[f"p({name})"]) for name in classes),
        )

    return _read_lines(file, image_row)


def _read_lines(file: Path, parse: Callable[[dict[str, str]], Row]) -> tuple[Row, ...]:
    """The parsed lines of a CSV file; none where it is missing. Raises RunError where one is damaged."""
    if not file.exists():
        return ()
    try:
        return tuple(map(parse, read_csv(file)))
    except (OSError, KeyError, ValueError) as error:
        raise RunError(f"{file}: cannot be read ({error}); evaluate again") from None


def _plain_fields(row: CaseRow | ImageRow) -> dict[str, Any]:
    """The row's fields without its numbers, each of which has its column."""
    return {name: value for name, value in asdict(row).items() if name not in ("scores", "probability")}


def _rounded(numbers: Mapping[str, float]) -> dict[str, Any]:
    return {name: round(value, DECIMALS) for name, value in numbers.items()}


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a finite number")
    return value


def _class_name(classes: Sequence[str], name: str) -> str:
    if name not in classes:
        raise ValueError(f"{name!r} is not among its classes")
    return name

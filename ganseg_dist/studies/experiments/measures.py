"""Scores of a table: of scored cases their mean, of classified images what only a whole set of them has.

A row is one case or one image with its numbers by name. Rows come in sets, one for each repetition with another seed. A
score is that of the repetitions on average, with a 95% interval for other patients and other seeds; two arms are paired
by patient, and by seed where both have as many.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ganseg_dist.config import RunConfig
from ganseg_dist.errors import DataError
from ganseg_dist.evaluation.classification import ImageRow
from ganseg_dist.evaluation.segmentation import CaseRow
from ganseg_dist.metrics.image_sets import (
    Owners,
    Statistic,
    confusion_counts,
    confusion_rates,
    curve_areas,
    patients_values,
)
from ganseg_dist.metrics.registry import score_called
from ganseg_dist.metrics.statistics import Interval, PairedComparison, Values, compare, interval_of, pseudo_values
from ganseg_dist.report.labels import region_label, score_in_words, score_label

RowSets = Sequence[Sequence[CaseRow]]
Maker = Callable[[Mapping[str, Values], Owners, int], Statistic]
"""Of a set of images: of their numbers (N,) by name, their owners and P; one of its scores has the column's name."""


@dataclass(frozen=True, slots=True)
class Measure(ABC):
    """A score of sets of rows."""

    name: str
    """The table's column."""

    @property
    @abstractmethod
    def title(self) -> str:
        """The same in words, as tables on a screen and figures have it."""

    @property
    @abstractmethod
    def needed(self) -> tuple[str, ...]:
        """Names of a row's numbers that it is made of; without them in every row there is no such score."""

    @abstractmethod
    def of_patients(self, rows: Sequence[CaseRow]) -> Values:
        """(P,) what each patient, in the order of their names, makes of the rows' score, which is their mean."""

    def interval(self, sets: RowSets, *, drawn: bool = True) -> Interval:
        """The score and its interval; n counts patients.

        Args:
            drawn: whether the sets are of a few seeds of many; models of given sites are all that there are.

        Raises DataError when the sets have other patients, or lack a class that the score needs.
        """
        _, values = self._of(sets)
        bounds = score_called(self.name).bounds
        return interval_of(values if drawn else values.mean(axis=0, keepdims=True), bounds=bounds)

    def difference(self, sets: RowSets, reference: RowSets) -> PairedComparison:
        """Less the reference's score. Raises DataError when the patients are not the same."""
        (patients, first), (others, second) = self._of(sets), self._of(reference)
        if patients != others:
            raise DataError(f"{self.name}: the arms have other patients; compare arms over the same")
        if len(first) != len(second):
            first, second = (values.mean(axis=0, keepdims=True) for values in (first, second))
        return compare(first - second)

    def _of(self, sets: RowSets) -> tuple[list[str], Values]:
        """The patients, and (S, P) what each makes of each set's score."""
        patients = [sorted({row.patient for row in part}) for part in sets]
        if any(others != patients[0] for others in patients):
            raise DataError(f"{self.name}: repetitions have other patients; repeat with the same split")
        return patients[0], np.stack([self.of_patients(part) for part in sets])


@dataclass(frozen=True, slots=True)
class MeanOf(Measure):
    """The mean of a number of every row."""

    of: str = ""
    """The number's name; none: the column's."""
    region: str = ""
    """What the region of a `region/score` is called in its cohort, such as Tumour."""

    @property
    def title(self) -> str:
        """Dice of the tumour."""
        return score_in_words(self.name, self.region)

    @property
    def needed(self) -> tuple[str, ...]:
        """The number."""
        return (self.of or self.name,)

    def of_patients(self, rows: Sequence[CaseRow]) -> Values:
        """Each patient's mean where all have as many rows."""
        numbers = np.array([row.scores[self.needed[0]] for row in rows], np.float64)
        return np.asarray(pseudo_values(numbers, np.array([row.patient for row in rows]))[0])


@dataclass(frozen=True, slots=True)
class OfImages(Measure):
    """What only a set of images has, such as an area under a curve."""

    numbers: tuple[str, ...]
    statistic: Maker

    @property
    def needed(self) -> tuple[str, ...]:
        """The numbers that the statistic is made of."""
        return self.numbers

    @property
    def title(self) -> str:
        """Of a score that each class has, the mean over the classes."""
        return score_label(self.name) + (" (macro)" if self.name in MACRO else "")

    def of_patients(self, rows: Sequence[CaseRow]) -> Values:
        """Jackknife pseudo-values. Raises DataError when the images lack a class that the score needs."""
        patients, owner = np.unique([row.patient for row in rows], return_inverse=True)
        numbers = {name: np.array([row.scores[name] for row in rows]) for name in self.numbers}
        values = patients_values(self.statistic(numbers, owner, len(patients)), len(patients))[self.name]
        if np.isnan(values).any():
            raise DataError("test patients: their images are all of one class; give a cohort or a split with two")
        return values


def measures_of(config: RunConfig) -> tuple[Measure, ...]:
    """What tables show of a run with this (resolved) config."""
    if config.system.task == "classification":
        two = len(config.data.classes or ()) == 2
        return CLASSIFICATION + (AREAS if two else ())
    regions = config.data.regions or ("wt",)
    label = region_label(regions[0], regions, config.data.modalities or ())
    return tuple(MeanOf(f"{regions[0]}/{score}", region=label) for score in ("dice", "iou", "sensitivity"))


def image_rows(rows: Sequence[ImageRow], classes: Sequence[str], threshold: float | None = None) -> list[CaseRow]:
    """Images of known class as rows, for the measures below.

    Numbers are `true` and `said`, indices of classes; `correct`; of two classes also `p`, the probability of the
    second, and with a threshold `called`, whether p reaches it.
    """
    return [
        CaseRow(row.case, row.patient, row.site, _numbers(row, row.truth, classes, threshold))
        for row in rows
        if row.truth is not None
    ]


def _numbers(row: ImageRow, truth: str, classes: Sequence[str], threshold: float | None) -> dict[str, float]:
    numbers = {
        "true": float(classes.index(truth)),
        "said": float(classes.index(row.predicted)),
        "correct": float(row.predicted == truth),
    }
    if len(classes) == 2:
        numbers["p"] = row.probability[1]
        if threshold is not None:
            numbers["called"] = float(row.probability[1] >= threshold)
    return numbers


def _rates(numbers: Mapping[str, Values], owner: Owners, patients: int) -> Statistic:
    true, said = (numbers[name].astype(int) for name in ("true", "said"))
    classes = int(max(true.max(), said.max())) + 1
    return confusion_rates(confusion_counts(true, said, owner, patients, classes))


def _areas(numbers: Mapping[str, Values], owner: Owners, patients: int) -> Statistic:
    return curve_areas(numbers["true"] == 1, numbers["p"], owner)


def _at_threshold(numbers: Mapping[str, Values], owner: Owners, patients: int) -> Statistic:
    true, called = (numbers[name].astype(int) for name in ("true", "called"))
    rates = confusion_rates(confusion_counts(true, called, owner, patients, 2))

    def statistic(drawn: Values) -> dict[str, Values]:
        of = rates(drawn)
        sensitivity, specificity = of["recall/1"], of["recall/0"]
        return {"sensitivity": sensitivity, "specificity": specificity, "youden_j": sensitivity + specificity - 1}

    return statistic


MACRO = ("precision", "recall", "f1")
"""Each class weighs the same."""
ACCURACY = MeanOf("accuracy", "correct")
CLASSIFICATION: tuple[Measure, ...] = (
    ACCURACY,
    *(OfImages(name, ("true", "said"), _rates) for name in MACRO),
)
AUROC = OfImages("auroc", ("true", "p"), _areas)
AUPRC = OfImages("auprc", ("true", "p"), _areas)
AREAS: tuple[Measure, ...] = (AUROC, AUPRC)
"""For finding the second of two classes."""
SENSITIVITY = OfImages("sensitivity", ("true", "called"), _at_threshold)
SPECIFICITY = OfImages("specificity", ("true", "called"), _at_threshold)
"""At the threshold by which images were `called`."""
YOUDEN_J = OfImages("youden_j", ("true", "called"), _at_threshold)
"""Sensitivity + specificity - 1."""

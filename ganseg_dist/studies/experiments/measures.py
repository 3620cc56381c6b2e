"""Scores of a table: means over scored cases, and scores that only a whole set of classified images has.

A row is one case or one image with its numbers by name. Rows come in sets, one for each repetition with another seed. A
score is the average over the repetitions, with a 95% interval over patients and seeds; two arms are paired by patient,
and by seed where both have the same number of seeds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ganseg_dist.config import RunConfig
from ganseg_dist.errors import DataError
from ganseg_dist.evaluation.results import CaseRow, ImageRow
from ganseg_dist.metrics.image_sets import (
    Owners,
    Statistic,
    confusion_counts,
    confusion_rates,
    curve_areas,
    patients_values,
)
from ganseg_dist.metrics.registry import find_score
from ganseg_dist.metrics.statistics import Interval, PairedComparison, Values, compare, interval_of, pseudo_values
from ganseg_dist.report.score_text import region_label, score_in_words, score_label

RowSets = Sequence[Sequence[CaseRow]]
StatisticFactory = Callable[[Mapping[str, Values], Owners, int], Statistic]
"""Makes the statistic of N images from their numbers (N,) by name, the index of each image's patient (N,) and the
number of patients P; one of the statistic's scores has the column's name."""


@dataclass(frozen=True, slots=True)
class Measure(ABC):
    """A score of sets of rows."""

    name: str
    """The table's column."""

    @property
    @abstractmethod
    def title(self) -> str:
        """The column's name in words, for tables on a screen and figures."""

    @property
    @abstractmethod
    def needed(self) -> tuple[str, ...]:
        """Names of the numbers that every row must have for this score."""

    @abstractmethod
    def of_patients(self, rows: Sequence[CaseRow]) -> Values:
        """(P,) value of each patient, in the order of their names; the mean of the values is the rows' score."""

    def interval(self, sets: RowSets, *, sampled_seeds: bool = True) -> Interval:
        """The score and its interval; n counts patients. The models of given sites are no sample, as seeds are.

        Raises DataError when the sets have different patients, or lack a class that the score needs.
        """
        _, values = self._patients_and_values(sets)
        bounds = find_score(self.name).bounds
        return interval_of(values if sampled_seeds else values.mean(axis=0, keepdims=True), bounds=bounds)

    def difference(self, sets: RowSets, reference: RowSets) -> PairedComparison:
        """The score less the reference's. Raises DataError when the patients are not the same."""
        (patients, first), (others, second) = self._patients_and_values(sets), self._patients_and_values(reference)
        if patients != others:
            raise DataError(f"{self.name}: the arms have other patients; compare arms over the same")
        if len(first) != len(second):
            first, second = (values.mean(axis=0, keepdims=True) for values in (first, second))
        return compare(first - second)

    def _patients_and_values(self, sets: RowSets) -> tuple[list[str], Values]:
        """The patients, and (S, P) the value of each patient in each of the S sets."""
        patients = [sorted({row.patient for row in part}) for part in sets]
        if any(others != patients[0] for others in patients):
            raise DataError(f"{self.name}: repetitions have other patients; repeat with the same split")
        return patients[0], np.stack([self.of_patients(part) for part in sets])


@dataclass(frozen=True, slots=True)
class MeanOf(Measure):
    """The mean of one number over the rows."""

    of: str = ""
    """The number's name; empty: the column's name."""
    region: str = ""
    """Label of the region of a `region/score` in its cohort, such as Tumour."""

    @property
    def title(self) -> str:
        """Such as "Dice of the tumour"."""
        return score_in_words(self.name, self.region)

    @property
    def needed(self) -> tuple[str, ...]:
        """Name of the number."""
        return (self.of or self.name,)

    def of_patients(self, rows: Sequence[CaseRow]) -> Values:
        """Each patient's value; its mean number where all patients have equally many rows."""
        numbers = np.array([row.scores[self.needed[0]] for row in rows], np.float64)
        return np.asarray(pseudo_values(numbers, np.array([row.patient for row in rows]))[0])


@dataclass(frozen=True, slots=True)
class OfImages(Measure):
    """A score that only a set of images has, such as an area under a curve."""

    numbers: tuple[str, ...]
    statistic: StatisticFactory

    @property
    def needed(self) -> tuple[str, ...]:
        """Names of the numbers that the statistic is made of."""
        return self.numbers

    @property
    def title(self) -> str:
        """The score's label; (macro) marks the mean over the classes."""
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
    """The usual measures of a run with this (resolved) config."""
    if config.system.task == "classification":
        binary = len(config.data.classes or ()) == 2
        return CLASSIFICATION + (AREAS if binary else ())
    regions = config.data.regions or ("wt",)
    label = region_label(regions[0], regions, config.data.modalities or ())
    return tuple(MeanOf(f"{regions[0]}/{score}", region=label) for score in ("dice", "iou", "sensitivity"))


def image_rows(rows: Sequence[ImageRow], classes: Sequence[str], threshold: float | None = None) -> list[CaseRow]:
    """Images of known class as rows, for the measures below.

    Numbers are `true` and `said`, the indices of the true and the predicted class, and `correct`; with two classes also
    `p`, the probability of the second, and with a threshold `called`, whether p reaches it.
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
    true, predicted = (numbers[name].astype(int) for name in ("true", "said"))
    classes = int(max(true.max(), predicted.max())) + 1
    return confusion_rates(confusion_counts(true, predicted, owner, patients, classes))


def _areas(numbers: Mapping[str, Values], owner: Owners, patients: int) -> Statistic:
    return curve_areas(numbers["true"] == 1, numbers["p"], owner)


def _at_threshold(numbers: Mapping[str, Values], owner: Owners, patients: int) -> Statistic:
    true, called = (numbers[name].astype(int) for name in ("true", "called"))
    rates = confusion_rates(confusion_counts(true, called, owner, patients, 2))

    def statistic(weights: Values) -> dict[str, Values]:
        of = rates(weights)
        sensitivity, specificity = of["recall/1"], of["recall/0"]
        return {"sensitivity": sensitivity, "specificity": specificity, "youden_j": sensitivity + specificity - 1}

    return statistic


MACRO = ("precision", "recall", "f1")
"""Scores averaged over the classes, each with the same weight."""
ACCURACY = MeanOf("accuracy", "correct")
CLASSIFICATION: tuple[Measure, ...] = (ACCURACY, *(OfImages(name, ("true", "said"), _rates) for name in MACRO))
AUROC, AUPRC = (OfImages(name, ("true", "p"), _areas) for name in ("auroc", "auprc"))
AREAS: tuple[Measure, ...] = (AUROC, AUPRC)
"""Areas for detecting the second of two classes."""
SENSITIVITY, SPECIFICITY, YOUDEN_J = (
    OfImages(name, ("true", "called"), _at_threshold) for name in ("sensitivity", "specificity", "youden_j")
)
"""At the threshold by which images were `called`; Youden's J is sensitivity + specificity - 1."""

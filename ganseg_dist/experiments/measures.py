"""Scores of a table: of scored cases their mean, of classified images what only a whole set of them has.

A row is one case or one image with its numbers by name. Rows come in sets, one for each repetition with another seed: a
score is that of the repetitions on average, with a 95% interval over patients, each of whom is drawn in all sets at
once. So are two arms paired: the same patients are drawn for both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ganseg_dist.config import RunConfig
from ganseg_dist.errors import DataError
from ganseg_dist.inference.classification import ImageRow
from ganseg_dist.inference.evaluation import CaseRow
from ganseg_dist.metrics.image_sets import (
    Owners,
    Statistic,
    Values,
    bootstrap,
    confusion_counts,
    confusion_rates,
    curve_areas,
)
from ganseg_dist.metrics.statistics import Interval, PairedComparison, bootstrap_mean, compare_paired
from ganseg_dist.report.labels import region_label, score_in_words, score_label

RowSets = Sequence[Sequence[CaseRow]]
Maker = Callable[[Mapping[str, Values], Owners, int], Statistic]
"""Of a set of images: of their numbers (N,) by name, their owners and P; one of its scores has the column's name."""


class Measure(Protocol):
    """A score of sets of rows."""

    @property
    def name(self) -> str:
        """The table's column."""
        ...

    @property
    def title(self) -> str:
        """The same in words, as tables on a screen and figures have it."""
        ...

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of a row's numbers that it is made of; without them in every row there is no such score."""
        ...

    def interval(self, sets: RowSets) -> Interval:
        """The score and its interval; n counts patients."""
        ...

    def difference(self, sets: RowSets, reference: RowSets) -> PairedComparison:
        """Less the reference's score. Raises DataError when the patients are not the same."""
        ...


@dataclass(frozen=True, slots=True)
class MeanOf:
    """The mean of a number of every row."""

    name: str
    of: str = ""
    """The number's name; none: the column's."""
    region: str = ""
    """What the region of a `region/score` is called in its cohort, such as Tumour."""

    @property
    def title(self) -> str:
        """Dice of the tumour."""
        return score_in_words(self.name, self.region)

    @property
    def needs(self) -> tuple[str, ...]:
        """The number."""
        return (self.of or self.name,)

    def interval(self, sets: RowSets) -> Interval:
        """Over all rows: repetitions have the same ones."""
        rows = [row for part in sets for row in part]
        return bootstrap_mean([row.scores[self.needs[0]] for row in rows], [row.patient for row in rows])

    def difference(self, sets: RowSets, reference: RowSets) -> PairedComparison:
        """Of patients' means, with Wilcoxon's p."""
        return compare_paired(self._by_patient(sets), self._by_patient(reference))

    def _by_patient(self, sets: RowSets) -> dict[str, float]:
        """Each patient's mean over cases and seeds."""
        values: dict[str, list[float]] = {}
        for part in sets:
            for row in part:
                values.setdefault(row.patient, []).append(row.scores[self.needs[0]])
        return {patient: float(np.mean(scores)) for patient, scores in values.items()}


@dataclass(frozen=True, slots=True)
class OfImages:
    """What only a set of images has, such as an area under a curve."""

    name: str
    needs: tuple[str, ...]
    statistic: Maker

    @property
    def title(self) -> str:
        """Of a score that each class has, the mean over the classes."""
        return score_label(self.name) + (" (macro)" if self.name in MACRO else "")

    def interval(self, sets: RowSets) -> Interval:
        """Raises DataError when the images lack a class that the score needs."""
        patients, statistic = self._of(sets)
        return self._interval(statistic, len(patients))

    def difference(self, sets: RowSets, reference: RowSets) -> PairedComparison:
        """Without a p: a patient alone has no such score."""
        (patients, first), (others, second) = self._of(sets), self._of(reference)
        if patients != others:
            raise DataError(f"{self.name}: the arms have other patients; compare arms over the same")
        return PairedComparison(self._interval(lambda drawn: first(drawn) - second(drawn), len(patients)), None)

    def _of(self, sets: RowSets) -> tuple[list[str], Callable[[Values], Values]]:
        """The sets' patients, and the average of the sets' scores, given how often each patient is drawn."""
        patients = sorted({row.patient for part in sets for row in part})
        parts = []
        for part in sets:
            numbers = {name: np.array([row.scores[name] for row in part]) for name in self.needs}
            owner = np.searchsorted(patients, [row.patient for row in part])
            parts.append(self.statistic(numbers, owner, len(patients)))
        return patients, lambda drawn: np.mean([statistic(drawn)[self.name] for statistic in parts], axis=0)

    def _interval(self, score: Callable[[Values], Values], patients: int) -> Interval:
        interval = bootstrap(lambda drawn: {self.name: score(drawn)}, patients)[self.name]
        if interval is None:
            raise DataError("test patients: their images are all of one class; give a cohort or a split with two")
        return interval


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

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
import numpy.typing as npt

from ganseg_dist.config import RunConfig
from ganseg_dist.errors import DataError
from ganseg_dist.inference.classification import ImageRow
from ganseg_dist.inference.evaluation import CaseRow
from ganseg_dist.metrics.statistics import RESAMPLES, Interval, PairedComparison, bootstrap_mean, compare_paired

DRAWN_AT_ONCE = 100
"""Keeps some ten thousand images within a few tens of MB."""

RowSets = Sequence[Sequence[CaseRow]]
Values = npt.NDArray[np.float64]
Owners = npt.NDArray[np.intp]
"""(N,) index of each image's patient."""
Statistic = Callable[[Values], Values]
"""(K,) scores, given how often each of P patients is drawn (K, P); NaN where those drawn lack a class."""
Maker = Callable[[Mapping[str, Values], Owners, int], Statistic]
"""The statistic of a set of images: of their numbers (N,) by name, their owners and P."""


class Measure(Protocol):
    """A score of sets of rows."""

    @property
    def name(self) -> str:
        """The table's column."""
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

    def interval(self, sets: RowSets) -> Interval:
        """By the draws of `bootstrap_mean`."""
        patients, statistic = self._of(sets)
        return _interval(statistic, len(patients))

    def difference(self, sets: RowSets, reference: RowSets) -> PairedComparison:
        """Without a p: a patient alone has no such score."""
        (patients, first), (others, second) = self._of(sets), self._of(reference)
        if patients != others:
            raise DataError(f"{self.name}: the arms have other patients; compare arms over the same")
        return PairedComparison(_interval(lambda drawn: first(drawn) - second(drawn), len(patients)), None)

    def _of(self, sets: RowSets) -> tuple[list[str], Statistic]:
        """The sets' patients, and the average of the sets' scores."""
        patients = sorted({row.patient for part in sets for row in part})
        parts = []
        for part in sets:
            numbers = {name: np.array([row.scores[name] for row in part]) for name in self.needs}
            owner = np.searchsorted(patients, [row.patient for row in part])
            parts.append(self.statistic(numbers, owner, len(patients)))
        return patients, lambda drawn: np.mean([statistic(drawn) for statistic in parts], axis=0)


def measures_of(config: RunConfig) -> tuple[Measure, ...]:
    """What tables show of a run with this (resolved) config."""
    if config.system.task == "classification":
        two = len(config.data.classes or ()) == 2
        return CLASSIFICATION + (AREAS if two else ())
    region = (config.data.regions or ("wt",))[0]
    return tuple(MeanOf(f"{region}/{score}") for score in ("dice", "iou", "sensitivity"))


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


def _interval(statistic: Statistic, n: int) -> Interval:
    """Raises DataError when the images lack a class that the score needs."""
    rng = np.random.default_rng(0)
    point = float(statistic(np.ones((1, n)))[0])
    if np.isnan(point):
        raise DataError("test patients: their images are all of one class; give a cohort or a split with two")
    draws = []
    for _ in range(RESAMPLES // DRAWN_AT_ONCE):
        drawn = rng.integers(n, size=(DRAWN_AT_ONCE, n)) + n * np.arange(DRAWN_AT_ONCE)[:, None]
        draws.append(statistic(np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape).astype(float)))
    low, high = np.nanpercentile(np.concatenate(draws), (2.5, 97.5))
    return Interval(point, float(low), float(high), n)


def _share(of: str, value: int, among: int) -> Maker:
    """The share of images whose `of` is this value, of those whose true class is `among`."""

    def statistic(numbers: Mapping[str, Values], owner: Owners, patients: int) -> Statistic:
        there = numbers["true"] == among
        right = there & (numbers[of] == value)
        counts = [np.bincount(owner, some, minlength=patients) for some in (right, there)]
        return lambda drawn: _ratio(*(drawn @ count for count in counts))

    return statistic


def _youden_j(numbers: Mapping[str, Values], owner: Owners, patients: int) -> Statistic:
    found, spared = (_share("called", value, among=value)(numbers, owner, patients) for value in (1, 0))
    return lambda drawn: found(drawn) + spared(drawn) - 1


def _macro(rate: Callable[[Values, Values, Values], Values]) -> Maker:
    """The mean of a class's rate over the classes that have images; rate(hits, true, said), (K, classes) each."""

    def statistic(numbers: Mapping[str, Values], owner: Owners, patients: int) -> Statistic:
        true, said = numbers["true"].astype(int), numbers["said"].astype(int)
        classes = int(max(true.max(), said.max())) + 1
        confusions = np.zeros((patients, classes, classes))
        np.add.at(confusions, (owner, true, said), 1)

        def score(drawn: Values) -> Values:
            confusion = np.tensordot(drawn, confusions, axes=1)
            images = confusion.sum(axis=2)
            rates = rate(np.diagonal(confusion, axis1=1, axis2=2), images, confusion.sum(axis=1))
            return _ratio(np.where(images > 0, rates, 0).sum(axis=1), (images > 0).sum(axis=1))

        return score

    return statistic


def _curve(area: Callable[[Values, Values], Values]) -> Maker:
    """An area of found positives over called images, by falling p; area(hits, called), (K, thresholds + 1) each."""

    def statistic(numbers: Mapping[str, Values], owner: Owners, patients: int) -> Statistic:
        order = np.argsort(-numbers["p"], kind="stable")
        ends = np.flatnonzero(np.append(np.diff(numbers["p"][order]), -1))  # equal ones are called together
        positive = numbers["true"][order] == 1

        def score(drawn: Values) -> Values:
            weights = drawn[:, owner[order]]
            hits, called = ((weights * some).cumsum(axis=1)[:, ends] for some in (positive, 1.0))
            return area(*(np.pad(counts, ((0, 0), (1, 0))) for counts in (hits, called)))

        return score

    return statistic


def _roc_area(hits: Values, called: Values) -> Values:
    alarms = called - hits
    return _ratio(np.asarray(np.trapezoid(hits, alarms, axis=1)), hits[:, -1] * alarms[:, -1])


def _average_precision(hits: Values, called: Values) -> Values:
    precision = _ratio(hits[:, 1:], np.maximum(called[:, 1:], 1))
    both = (hits[:, -1] > 0) & (hits[:, -1] < called[:, -1])
    return np.where(both, _ratio((np.diff(hits, axis=1) * precision).sum(axis=1), hits[:, -1]), np.nan)


def _ratio(numerator: Values, denominator: npt.NDArray[np.number]) -> Values:
    """NaN where there is nothing to divide by."""
    none = denominator == 0
    return np.where(none, np.nan, numerator / np.where(none, 1, denominator))


ACCURACY = MeanOf("accuracy", "correct")
CLASSIFICATION: tuple[Measure, ...] = (
    ACCURACY,
    OfImages("precision", ("true", "said"), _macro(lambda hits, true, said: hits / np.maximum(said, 1))),
    OfImages("recall", ("true", "said"), _macro(lambda hits, true, said: hits / np.maximum(true, 1))),
    OfImages("f1", ("true", "said"), _macro(lambda hits, true, said: 2 * hits / np.maximum(true + said, 1))),
)
"""Precision, recall and F1 are macro: each class weighs the same."""
AUROC = OfImages("auroc", ("true", "p"), _curve(_roc_area))
AUPRC = OfImages("auprc", ("true", "p"), _curve(_average_precision))
AREAS: tuple[Measure, ...] = (AUROC, AUPRC)
"""For finding the second of two classes."""
SENSITIVITY = OfImages("sensitivity", ("true", "called"), _share("called", 1, among=1))
SPECIFICITY = OfImages("specificity", ("true", "called"), _share("called", 0, among=0))
"""At the threshold by which images were `called`."""
YOUDEN_J = OfImages("youden_j", ("true", "called"), _youden_j)
"""Sensitivity + specificity - 1."""

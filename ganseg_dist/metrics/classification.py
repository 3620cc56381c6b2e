"""Classification scores: per class, over classes and of the probabilities, with intervals. Never NaN.

Every interval is by `metrics/image_sets.py: intervals` over patients, each with all its images. A score that needs a
class without images is None.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from ganseg_dist.errors import DataError
from ganseg_dist.metrics.image_sets import (
    Owners,
    Statistic,
    confusion_counts,
    confusion_rates,
    curve_areas,
    intervals,
    ratio,
)
from ganseg_dist.metrics.statistics import Interval, mean_interval

Labels = npt.NDArray[np.integer]
Probabilities = npt.NDArray[np.floating]
Scores = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

CALIBRATION_BINS = 10
SUM_TOLERANCE = 1e-2
"""Largest deviation of a row's sum from 1: that of half-precision probabilities of many classes."""


@dataclass(frozen=True, slots=True)
class ClassScores:
    """One class against the others."""

    precision: Interval | None
    """TP / (TP + FP); 0 where no image is predicted as the class. None, like the others, without its images."""
    recall: Interval | None
    """TP / (TP + FN)."""
    f1: Interval | None
    """2 TP / (2 TP + FP + FN)."""
    n_images: int
    n_predicted: int


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """Images whose highest probability lies in (low, high]."""

    low: float
    high: float
    confidence: float | None
    """Mean highest probability; None in an empty bin."""
    accuracy: float | None
    """Share of correct predictions; None in an empty bin."""
    n_images: int


@dataclass(frozen=True, slots=True)
class ClassificationScores:
    """All scores of a set of classified images."""

    accuracy: Interval
    balanced_accuracy: Interval
    """Mean recall of the classes that have images."""
    precision: Interval
    """Macro: the mean over the classes that have images, each weighing the same."""
    recall: Interval
    """Macro; equal to the balanced accuracy."""
    f1: Interval
    """Macro."""
    expected_calibration_error: Interval
    """Sum over the bins of |accuracy - confidence|, weighted by their images (Guo et al. 2017, Eq. 3)."""
    auroc: Interval | None
    """For two classes, the second being positive; None for more classes, or where only one has images."""
    auprc: Interval | None
    """Average precision, under the same conditions."""
    classes: dict[str, ClassScores]
    confusion: tuple[tuple[int, ...], ...]
    """A row for each true class, a column for each predicted one."""
    calibration: tuple[CalibrationBin, ...]
    n_images: int
    n_patients: int

    @property
    def intervals(self) -> dict[str, Interval]:
        """The scores over all classes that exist, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Interval)}


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """Scores of the rule "positive if score >= threshold" on a set of images."""

    threshold: float
    sensitivity: Interval | None
    """TP / (TP + FN); None without positive images."""
    specificity: Interval | None
    """TN / (TN + FP); None without negative images."""
    tp: int
    fn: int
    fp: int
    tn: int


def classification_scores(
    truth: Labels, probability: Probabilities, patients: Sequence[str], classes: Sequence[str]
) -> ClassificationScores:
    """Score N images of known class, (N,) indices, by probabilities (N, K) whose rows add up to 1.

    An image is predicted as the class of its highest probability, the first of equals.

    Raises DataError when there are no images, or truth, probabilities, patients and classes do not fit together.
    """
    _check_images(truth, probability, patients, classes)
    names, owner = np.unique(np.asarray(patients), return_inverse=True)
    predicted, n = probability.argmax(axis=1), len(names)
    counts = confusion_counts(truth, predicted, owner, n, len(classes))
    confusion = counts.sum(axis=0)
    rates = intervals(confusion_rates(counts), n)
    macro = {name: _not_none(rates[name]) for name in ("precision", "recall", "f1")}
    confidence, correct = probability.max(axis=1).astype(np.float64), predicted == truth
    bins = _bin_sums(confidence, correct, owner)
    calibration = intervals(_calibration_error(bins), n)
    areas: dict[str, Interval | None] = {"auroc": None, "auprc": None}
    if len(classes) == 2 and 0 < truth.sum() < len(truth):
        areas = intervals(curve_areas(truth == 1, probability[:, 1].astype(np.float64), owner), n)
    return ClassificationScores(
        accuracy=mean_interval(correct.astype(np.float64).tolist(), patients, bounds=(0, 1)),
        balanced_accuracy=macro["recall"],
        **macro,
        expected_calibration_error=_not_none(calibration["expected_calibration_error"]),
        auroc=areas["auroc"],
        auprc=areas["auprc"],
        classes={
            name: ClassScores(
                rates[f"precision/{index}"],
                rates[f"recall/{index}"],
                rates[f"f1/{index}"],
                int(confusion[index].sum()),
                int(confusion[:, index].sum()),
            )
            for index, name in enumerate(classes)
        },
        confusion=tuple(tuple(int(count) for count in row) for row in confusion),
        calibration=_calibration_curve(bins.sum(axis=0)),
        n_images=len(truth),
        n_patients=n,
    )


def threshold_at_specificity(scores: Scores, positive: Flags, specificity: float) -> float | None:
    """The lowest threshold that classifies at least this share of the negative images as negative.

    For scores (N,) of validation images: on the images it was chosen on, a threshold is overestimated. It lies
    halfway to the next score. None without negative images.

    Raises DataError when the scores are not finite (N,) with boolean (N,) labels, or the specificity is not in (0, 1).
    """
    scores = np.asarray(scores, np.float64)  # in single precision, a threshold between two scores may equal one of them
    _check_scores(scores, positive)
    if not 0 < specificity < 1:
        raise DataError(f"specificity: {specificity}; give a share between 0 and 1")
    negatives = np.sort(scores[~positive])
    if not len(negatives):
        return None
    # Rounded, because 0.07 * 100 is a little more than 7.
    below = float(negatives[math.ceil(round(specificity * len(negatives), 9)) - 1])
    higher = scores[scores > below]
    above = float(higher.min()) if len(higher) else math.inf
    halfway = below + (above - below) / 2
    return halfway if below < halfway < math.inf else math.nextafter(below, math.inf)


def operating_point(scores: Scores, positive: Flags, patients: Sequence[str], threshold: float) -> OperatingPoint:
    """Sensitivity and specificity of test images at a threshold chosen on validation.

    `scores` (N,), `positive` (N,) boolean and each image's patient.

    Raises DataError when they do not fit together or a score is not finite.
    """
    scores = np.asarray(scores, np.float64)
    _check_scores(scores, positive)
    predicted = scores >= threshold
    owners = np.asarray(patients)
    if len(owners) != len(scores):
        raise DataError(f"patients: {len(owners)} names for {len(scores)} scores; name each image's patient")
    _, owner = np.unique(owners, return_inverse=True)
    (tn, fp), (fn, tp) = confusion_counts(positive, predicted, owner, int(owner.max()) + 1, 2).sum(axis=0).tolist()
    sensitivity, specificity = (_rate(predicted, positive, owners, of_positives) for of_positives in (True, False))
    return OperatingPoint(threshold, sensitivity, specificity, tp, fn, fp, tn)


def _rate(predicted: Flags, positive: Flags, patients: npt.NDArray[np.str_], of_positives: bool) -> Interval | None:
    """The share of correct predictions of the positive or the negative images, over the patients who have any."""
    chosen = positive == of_positives
    names, owner = np.unique(patients[chosen], return_inverse=True)
    if not len(names):
        return None
    counts = confusion_counts(positive[chosen], predicted[chosen], owner, len(names), 2)
    return intervals(confusion_rates(counts), len(names))[f"recall/{of_positives:d}"]


def _bin_sums(confidence: Scores, correct: Flags, owner: Owners) -> Scores:
    """(P, CALIBRATION_BINS, 3): images, sum of confidences and correct images, of each patient in each bin."""
    bins = np.clip(np.ceil(confidence * CALIBRATION_BINS).astype(int) - 1, 0, CALIBRATION_BINS - 1)
    sums = np.zeros((int(owner.max()) + 1, CALIBRATION_BINS, 3))
    np.add.at(sums, (owner, bins), np.stack([np.ones_like(confidence), confidence, correct], axis=1))
    return sums


def _calibration_error(sums: Scores) -> Statistic:
    def statistic(weights: Scores) -> dict[str, Scores]:
        count, confidence, correct = np.moveaxis(np.tensordot(weights, sums, axes=1), -1, 0)
        return {"expected_calibration_error": ratio(np.abs(correct - confidence).sum(axis=-1), count.sum(axis=-1))}

    return statistic


def _calibration_curve(sums: Scores) -> tuple[CalibrationBin, ...]:
    return tuple(
        CalibrationBin(
            index / CALIBRATION_BINS,
            (index + 1) / CALIBRATION_BINS,
            float(confidence / count) if count else None,
            float(correct / count) if count else None,
            int(count),
        )
        for index, (count, confidence, correct) in enumerate(sums)
    )


def _not_none(interval: Interval | None) -> Interval:
    """The interval of a score that exists for every set of images."""
    assert interval is not None
    return interval


def _check_images(truth: Labels, probability: Probabilities, patients: Sequence[str], classes: Sequence[str]) -> None:
    if truth.ndim != 1 or not len(truth) or len(classes) < 2 or probability.shape != (len(truth), len(classes)):
        raise DataError(
            f"classification: truth {truth.shape} beside probabilities {probability.shape} of {len(classes)} classes; "
            "give (N,) and (N, K) of at least two classes"
        )
    if len(patients) != len(truth):
        raise DataError(f"patients: {len(patients)} names for {len(truth)} images; name each image's patient")
    if not np.issubdtype(truth.dtype, np.integer) or truth.min() < 0 or truth.max() >= len(classes):
        raise DataError(
            f"truth: {truth.dtype} values that are not all 0..{len(classes) - 1}; leave out images of unknown class"
        )
    # Written so that NaN fails too.
    sums = probability.sum(axis=1, dtype=np.float64)
    if not (probability.min() >= 0 and probability.max() <= 1 and np.abs(sums - 1).max() <= SUM_TOLERANCE):
        raise DataError("probabilities: not all in [0, 1] with rows that add up to 1; apply the softmax first")


def _check_scores(scores: Scores, positive: Flags) -> None:
    if scores.ndim != 1 or scores.shape != positive.shape or not len(scores) or positive.dtype != np.bool_:
        raise DataError(
            f"scores: shape {scores.shape} beside {positive.dtype} labels {positive.shape}; "
            "give one score and one boolean an image"
        )
    if not np.isfinite(scores).all():
        raise DataError(f"scores: {np.count_nonzero(~np.isfinite(scores))} are not finite; check the classifier")

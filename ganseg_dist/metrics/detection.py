"""Slices classified as abnormal by a discriminator's score: GANet-Seg's Table 1, and what it leaves out.

The rule is "abnormal if score < threshold" throughout: a discriminator gives healthy tissue the high scores.
A quantity that needs a class without slices is None, never NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_curve

from ganseg_dist.errors import DataError
from ganseg_dist.metrics.image_sets import confusion_counts, curve_areas

Scores = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class ThresholdRow:
    """Scores of one threshold on a set of slices."""

    threshold: float
    accuracy: float
    sensitivity: float | None
    """TP / (TP + FN); None without abnormal slices."""
    specificity: float | None
    """TN / (TN + FP); None without normal slices."""
    youden_j: float | None
    """Sensitivity + specificity - 1; None unless both classes have slices."""
    tp: int
    fn: int
    fp: int
    tn: int


def threshold_table(scores: Scores, abnormal: Flags, thresholds: Sequence[float]) -> tuple[ThresholdRow, ...]:
    """GANet-Seg Table 1 with specificity, Youden's J and true negatives: one row per threshold.

    `scores` (N,) and `abnormal` (N,) boolean, one per slice. Calibrate the threshold on validation
    (`youden_optimal_threshold`), report this table on test.

    Raises DataError when there are no slices, the lengths differ or a score is not finite.
    """
    _check_slices(scores, abnormal)
    return tuple(_row(scores < threshold, abnormal, threshold) for threshold in thresholds)


def auroc(scores: Scores, abnormal: Flags) -> float | None:
    """Area under the ROC curve for finding abnormal slices by low scores, [0, 1]; None for one class alone."""
    return _area("auroc", scores, abnormal)


def auprc(scores: Scores, abnormal: Flags) -> float | None:
    """Average precision for finding abnormal slices by low scores, [0, 1]; None for one class alone."""
    return _area("auprc", scores, abnormal)


def roc(scores: Scores, abnormal: Flags) -> npt.NDArray[np.float64]:
    """The ROC curve for finding abnormal slices by low scores: (K, 2) of false positive rate and sensitivity, each in
    [0, 1], from (0, 0) to (1, 1); no point for one class alone.
    """
    _check_slices(scores, abnormal)
    if not _has_both_classes(abnormal):
        return np.zeros((0, 2))
    return np.stack(roc_curve(abnormal, -scores)[:2], axis=1)


def youden_optimal_threshold(scores: Scores, abnormal: Flags) -> float | None:
    """The threshold of the largest J = sensitivity + specificity - 1; the lowest of several; None for one class alone.

    It lies halfway between two neighbouring scores. Where no threshold beats chance it is the lowest score, so that
    no slice is abnormal.
    """
    _check_slices(scores, abnormal)
    if not _has_both_classes(abnormal):
        return None
    values, positions = np.unique(scores, return_inverse=True)
    # Below threshold k lie the slices of the k lowest values; by the last threshold every slice is abnormal.
    flagged_abnormal, flagged_normal = (
        np.concatenate([[0], np.cumsum(np.bincount(positions[chosen], minlength=len(values)))])
        for chosen in (abnormal, ~abnormal)
    )
    # J times both class sizes, in integers, so that rounding does not choose among equals.
    scaled_j = flagged_abnormal * flagged_normal[-1] - flagged_normal * flagged_abnormal[-1]
    best = int(np.argmax(scaled_j))
    if best == 0:
        return float(values[0])
    # J is 0 when everything is flagged, so the best threshold has a score above it.
    below, above = float(values[best - 1]), float(values[best])
    halfway = below + (above - below) / 2
    return halfway if halfway > below else above


def _row(flagged: Flags, abnormal: Flags, threshold: float) -> ThresholdRow:
    together = np.zeros(len(abnormal), np.intp)  # as if of one patient
    (tn, fp), (fn, tp) = confusion_counts(abnormal, flagged, together, 1, 2)[0].tolist()
    sensitivity = tp / (tp + fn) if tp + fn else None
    specificity = tn / (tn + fp) if tn + fp else None
    return ThresholdRow(
        threshold=threshold,
        accuracy=(tp + tn) / len(abnormal),
        sensitivity=sensitivity,
        specificity=specificity,
        youden_j=None if sensitivity is None or specificity is None else sensitivity + specificity - 1,
        tp=tp,
        fn=fn,
        fp=fp,
        tn=tn,
    )


def _area(name: str, scores: Scores, abnormal: Flags) -> float | None:
    _check_slices(scores, abnormal)
    if not _has_both_classes(abnormal):
        return None
    together = np.zeros(len(abnormal), np.intp)  # as if of one patient
    return float(curve_areas(abnormal, -scores, together)(np.ones((1, 1)))[name][0])


def _has_both_classes(abnormal: Flags) -> bool:
    return bool(abnormal.any() and not abnormal.all())


def _check_slices(scores: Scores, abnormal: Flags) -> None:
    if scores.ndim != 1 or scores.shape != abnormal.shape or not len(scores):
        raise DataError(
            f"scores: shape {scores.shape} beside {abnormal.shape} labels; give one score and one label a slice"
        )
    if abnormal.dtype != np.bool_:
        raise DataError(f"abnormal: is {abnormal.dtype}, not boolean; compare the labels first")
    if not np.isfinite(scores).all():
        raise DataError(f"scores: {np.count_nonzero(~np.isfinite(scores))} are not finite; check the discriminator")

"""How well images are classified: class by class, over classes and as probabilities, with intervals. Never NaN.

Every interval is the 95% percentile interval of 10 000 seeded resamples of the patients, each drawn with all its
images. A score that needs a class which is not there is None, and a resample without that class does not count.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.metrics import confusion_matrix

from ganseg_dist.errors import DataError
from ganseg_dist.metrics.statistics import RESAMPLES, Interval, bootstrap_mean

Labels = npt.NDArray[np.integer]
Probabilities = npt.NDArray[np.floating]
Scores = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

CALIBRATION_BINS = 10
CURVE_RESAMPLES = 1000
"""Of the areas under curves, each of which goes through all images."""
SUM_TOLERANCE = 1e-2
"""Half-precision probabilities of many classes add up to 1 no better."""


@dataclass(frozen=True, slots=True)
class ClassScores:
    """One class against the others."""

    precision: Interval | None
    """TP / (TP + FP); 0 where nothing was called this class. None without images of the class, as are the others."""
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
    """Share that was right; None in an empty bin."""
    n_images: int


@dataclass(frozen=True, slots=True)
class ClassificationScores:
    """Everything measured on a set of classified images."""

    accuracy: Interval
    balanced_accuracy: Interval
    """Mean recall of the classes that have images."""
    precision: Interval
    """Macro: the mean over the classes that have images, each weighing the same."""
    recall: Interval
    """Macro; the balanced accuracy by its other name."""
    f1: Interval
    """Macro."""
    expected_calibration_error: Interval
    """Sum over the bins of |accuracy - confidence|, weighted by their images (Guo et al. 2017, Eq. 3)."""
    auroc: Interval | None
    """Of two classes, for finding the second; None for more, or for one class alone."""
    auprc: Interval | None
    """Average precision, likewise."""
    classes: dict[str, ClassScores]
    confusion: tuple[tuple[int, ...], ...]
    """A row for each true class, a column for each predicted one."""
    calibration: tuple[CalibrationBin, ...]
    n_images: int
    n_patients: int


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """What the rule "positive if score >= threshold" does to a set of images."""

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
    truth: Labels, probability: Probabilities, patients: Sequence[str], classes: Sequence[str], *, seed: int = 0
) -> ClassificationScores:
    """Score images whose class is known.

    An image is called the class of its highest probability, the first of equals.

    Args:
        truth: (N,) index of each image's class.
        probability: (N, K) in [0, 1], each row adding up to 1.
        patients: each image's patient.
        classes: K names.

    Raises DataError when there are no images, or truth, probabilities, patients and classes do not fit together.
    """
    _require_images(truth, probability, patients, classes)
    names, owner = np.unique(np.asarray(patients), return_inverse=True)
    predicted = probability.argmax(axis=1)
    labels = np.arange(len(classes))
    confusions = np.stack(
        [
            confusion_matrix(truth[owner == patient], predicted[owner == patient], labels=labels)
            for patient in range(len(names))
        ]
    )
    confusion = confusions.sum(axis=0)
    rates = _bootstrap(_rates, confusions, seed)
    macro = {name: _known(rates[name]) for name in ("precision", "recall", "f1")}
    confidence, correct = probability.max(axis=1).astype(np.float64), predicted == truth
    bins = _bin_sums(confidence, correct, owner)
    error = _bootstrap(lambda sums: {"error": _calibration_error(sums)}, bins, seed)["error"]
    of_second = truth == 1, probability[:, 1].astype(np.float64)
    auroc, auprc = _area_intervals(*of_second, owner, seed) if len(classes) == 2 else (None, None)
    return ClassificationScores(
        accuracy=bootstrap_mean(correct.astype(np.float64).tolist(), patients, seed=seed),
        balanced_accuracy=macro["recall"],
        **macro,
        expected_calibration_error=_known(error),
        auroc=auroc,
        auprc=auprc,
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
        n_patients=len(names),
    )


def threshold_at_specificity(scores: Scores, positive: Flags, specificity: float) -> float | None:
    """The lowest threshold by which at least this share of the negative images is called negative.

    For scores (N,) of validation images: a threshold chosen on the images it is then judged by flatters itself. It
    lies halfway to the next score. None without negative images.

    Raises DataError when the scores are no finite (N,) beside boolean (N,), or the specificity is not in (0, 1).
    """
    scores = np.asarray(scores, np.float64)  # of single precision, a threshold between two may be one of them
    _require_scores(scores, positive)
    if not 0 < specificity < 1:
        raise DataError(f"specificity: {specificity}; give a share between 0 and 1")
    negatives = np.sort(scores[~positive])
    if not len(negatives):
        return None
    # Rounded, for 0.07 * 100 is a little more than 7.
    below = float(negatives[math.ceil(round(specificity * len(negatives), 9)) - 1])
    higher = scores[scores > below]
    above = float(higher.min()) if len(higher) else math.inf
    halfway = below + (above - below) / 2
    return halfway if below < halfway < math.inf else math.nextafter(below, math.inf)


def operating_point(
    scores: Scores, positive: Flags, patients: Sequence[str], threshold: float, *, seed: int = 0
) -> OperatingPoint:
    """Sensitivity and specificity of test images at a threshold that validation chose.

    `scores` (N,), `positive` (N,) boolean and each image's patient.

    Raises DataError when they do not fit together or a score is not finite.
    """
    scores = np.asarray(scores, np.float64)
    _require_scores(scores, positive)
    called = scores >= threshold
    owners = np.asarray(patients)
    if len(owners) != len(scores):
        raise DataError(f"patients: {len(owners)} names for {len(scores)} scores; name each image's patient")
    sensitivity, specificity = (
        bootstrap_mean(right[chosen].astype(np.float64).tolist(), owners[chosen].tolist(), seed=seed)
        if chosen.any()
        else None
        for right, chosen in ((called, positive), (~called, ~positive))
    )
    tp, fn, fp, tn = (
        int(np.count_nonzero(cell))
        for cell in (called & positive, ~called & positive, called & ~positive, ~called & ~positive)
    )
    return OperatingPoint(threshold, sensitivity, specificity, tp, fn, fp, tn)


def _rates(confusion: npt.NDArray[np.floating]) -> dict[str, Scores]:
    """Scores (...) of confusion matrices (..., K, K); NaN where a class has no images."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    true, predicted = confusion.sum(axis=-1), confusion.sum(axis=-2)
    present = true > 0
    of_classes = {
        "precision": hits / np.maximum(predicted, 1),
        "recall": hits / np.maximum(true, 1),
        "f1": 2 * hits / np.maximum(true + predicted, 1),
    }
    macro = {name: np.where(present, values, 0).sum(-1) / present.sum(-1) for name, values in of_classes.items()}
    return macro | {
        f"{name}/{index}": np.where(present[..., index], values[..., index], np.nan)
        for name, values in of_classes.items()
        for index in range(confusion.shape[-1])
    }


def _bin_sums(confidence: Scores, correct: Flags, owner: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
    """(P, CALIBRATION_BINS, 3): images, sum of confidences and right ones of each patient in each bin."""
    bins = np.clip(np.ceil(confidence * CALIBRATION_BINS).astype(int) - 1, 0, CALIBRATION_BINS - 1)
    sums = np.zeros((int(owner.max()) + 1, CALIBRATION_BINS, 3))
    np.add.at(sums, (owner, bins), np.stack([np.ones_like(confidence), confidence, correct], axis=1))
    return sums


def _calibration_error(sums: npt.NDArray[np.float64]) -> Scores:
    """(...) of (..., CALIBRATION_BINS, 3)."""
    count, confidence, correct = np.moveaxis(sums, -1, 0)
    error: Scores = np.abs(correct - confidence).sum(axis=-1) / count.sum(axis=-1)
    return error


def _calibration_curve(sums: npt.NDArray[np.float64]) -> tuple[CalibrationBin, ...]:
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


def _bootstrap(
    scores: Callable[[npt.NDArray[np.float64]], Mapping[str, Scores]], sums: npt.NDArray[np.number], seed: int
) -> dict[str, Interval | None]:
    """Intervals of scores that follow from sums over the images, given each patient's sums (P, ...)."""
    n = len(sums)
    rng = np.random.default_rng(seed)
    of_patients = sums.astype(np.float64)
    point = scores(of_patients.sum(axis=0))
    # A thousand resamples at a time keep some thousand patients within a few tens of MB.
    blocks = [scores(np.tensordot(_draws(rng, n, 1000), of_patients, axes=1)) for _ in range(RESAMPLES // 1000)]
    return {
        name: _interval(float(value), np.concatenate([block[name] for block in blocks]), n)
        for name, value in point.items()
    }


def _area_intervals(
    positive: Flags, score: Scores, owner: npt.NDArray[np.intp], seed: int
) -> tuple[Interval | None, Interval | None]:
    """Of AUROC and average precision; None for one class alone."""
    if positive.all() or not positive.any():
        return None, None
    n = int(owner.max()) + 1
    rng = np.random.default_rng(seed)
    blocks = []
    # A hundred resamples at a time keep some ten thousand images within a few tens of MB.
    for _ in range(CURVE_RESAMPLES // 100):
        draws = _draws(rng, n, 100)[:, owner]
        both = draws[:, positive].any(axis=1) & draws[:, ~positive].any(axis=1)
        blocks.append(_areas(draws[both], positive, score))
    point = _areas(np.ones((1, len(score))), positive, score)[:, 0]
    auroc, auprc = (_interval(float(value), drawn, n) for value, drawn in zip(point, np.hstack(blocks), strict=True))
    return auroc, auprc


def _areas(weights: npt.NDArray[np.number], positive: Flags, score: Scores) -> npt.NDArray[np.float64]:
    """(2, R): AUROC and average precision of images that weigh (R, N). A patient drawn twice weighs twice."""
    order = np.argsort(-score, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(score[order]), -1))  # equal scores are called positive together
    called = weights[:, order].cumsum(axis=1)[:, ends]
    hits = (weights * positive)[:, order].cumsum(axis=1)[:, ends]
    true_positives, false_positives = (np.pad(count, ((0, 0), (1, 0))) for count in (hits, called - hits))
    positives, negatives = true_positives[:, -1], false_positives[:, -1]
    auroc = np.trapezoid(true_positives, false_positives, axis=1) / (positives * negatives)
    # The first images in order may weigh nothing; their step of recall is 0 then.
    precision = hits / np.maximum(called, 1)
    return np.stack([auroc, (np.diff(true_positives, axis=1) * precision).sum(axis=1) / positives])


def _draws(rng: np.random.Generator, n: int, resamples: int) -> npt.NDArray[np.intp]:
    """(resamples, n): how often each of n patients is drawn, by the same draws as those of `bootstrap_mean`."""
    drawn = rng.integers(n, size=(resamples, n)) + n * np.arange(resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=resamples * n).reshape(resamples, n)


def _interval(point: float, resampled: Scores, n: int) -> Interval | None:
    if math.isnan(point):
        return None
    low, high = np.nanpercentile(resampled, (2.5, 97.5))
    return Interval(point, float(low), float(high), n)


def _known(interval: Interval | None) -> Interval:
    """Of a score that every set of images has."""
    assert interval is not None
    return interval


def _require_images(truth: Labels, probability: Probabilities, patients: Sequence[str], classes: Sequence[str]) -> None:
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


def _require_scores(scores: Scores, positive: Flags) -> None:
    if scores.ndim != 1 or scores.shape != positive.shape or not len(scores) or positive.dtype != np.bool_:
        raise DataError(
            f"scores: shape {scores.shape} beside {positive.dtype} labels {positive.shape}; "
            "give one score and one boolean an image"
        )
    if not np.isfinite(scores).all():
        raise DataError(f"scores: {np.count_nonzero(~np.isfinite(scores))} are not finite; check the classifier")

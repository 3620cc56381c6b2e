"""Scores that only a set of images has, such as an area under a curve, and their intervals over patients.

A statistic takes how often each patient is drawn. So one formula gives the score itself, every patient drawn once, its
bootstrap, in which a patient is drawn with all its images, and what is paired over the same draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from ganseg_dist.metrics.statistics import RESAMPLES, Interval

DRAWN_AT_ONCE = 100
"""Keeps some ten thousand images within a few tens of MB."""

Values = npt.NDArray[np.float64]
Labels = npt.NDArray[np.integer] | npt.NDArray[np.bool_]
Owners = npt.NDArray[np.intp]
"""(N,) index of each image's patient."""
Statistic = Callable[[Values], Mapping[str, Values]]
"""(K,) of each score by name, given how often each of P patients is drawn (K, P); NaN where those lack a class."""


def bootstrap(statistic: Statistic, patients: int, *, seed: int = 0) -> dict[str, Interval | None]:
    """Each score with its 95% percentile interval from 10 000 seeded resamples, by the draws of `bootstrap_mean`.

    A score that needs a class which is not there is None, and a resample without that class does not count. Areas
    under curves of ten thousand images take four seconds.
    """
    rng = np.random.default_rng(seed)
    point = statistic(np.ones((1, patients)))
    blocks = [statistic(_draws(rng, patients)) for _ in range(RESAMPLES // DRAWN_AT_ONCE)]
    return {
        name: _interval(float(value[0]), np.concatenate([block[name] for block in blocks]), patients)
        for name, value in point.items()
    }


def confusion_counts(truth: Labels, called: Labels, owner: Owners, patients: int, classes: int) -> npt.NDArray[np.intp]:
    """(P, classes, classes): each patient's images by true and called class, of the (N,) indices of both."""
    cells = np.ravel_multi_index((owner, truth, called), (patients, classes, classes))
    return np.bincount(cells, minlength=patients * classes**2).reshape(patients, classes, classes)


def confusion_rates(counts: npt.NDArray[np.integer]) -> Statistic:
    """Of `confusion_counts`: precision, recall and f1 of each class as `recall/0`, and without a number macro.

    precision = TP / (TP + FP), 0 where nothing was called the class; recall = TP / (TP + FN);
    f1 = 2 TP / (2 TP + FP + FN). Macro is the mean over the classes that have images. Of two classes, `recall/1` is
    the sensitivity and `recall/0` the specificity.
    """
    patients, classes, _ = counts.shape
    of_patients = counts.reshape(patients, -1).astype(np.float64)

    def statistic(drawn: Values) -> dict[str, Values]:
        confusion = (drawn @ of_patients).reshape(-1, classes, classes)
        hits = np.diagonal(confusion, axis1=1, axis2=2)
        true, called = confusion.sum(axis=2), confusion.sum(axis=1)
        of_classes = {  # (K, classes)
            "precision": np.where(true > 0, hits / np.maximum(called, 1), np.nan),
            "recall": ratio(hits, true),
            "f1": ratio(2 * hits, np.where(true > 0, true + called, 0)),
        }
        present = (true > 0).sum(axis=1)
        macro = {name: ratio(np.nansum(rates, axis=1), present) for name, rates in of_classes.items()}
        return macro | {f"{name}/{k}": rates[:, k] for name, rates in of_classes.items() for k in range(classes)}

    return statistic


def curve_areas(positive: npt.NDArray[np.bool_], score: npt.NDArray[np.floating], owner: Owners) -> Statistic:
    """`auroc`, by trapezoids, and `auprc`, the average precision, of (N,) images that are called by falling score.

    auprc = sum_t (recall_t - recall_(t-1)) precision_t over the thresholds t.
    """
    order = np.argsort(-score, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(score[order]), -1))  # equal scores are called positive together
    of_positive = positive[order]

    def statistic(drawn: Values) -> dict[str, Values]:
        weights = drawn[:, owner[order]]
        hits, called = (
            np.pad((weights * some).cumsum(axis=1)[:, ends], ((0, 0), (1, 0))) for some in (of_positive, 1.0)
        )
        alarms = called - hits
        positives, negatives = hits[:, -1], alarms[:, -1]
        # The first images in order may not be drawn; their step of recall is 0 then.
        precision = hits[:, 1:] / np.maximum(called[:, 1:], 1)
        return {
            "auroc": ratio(np.asarray(np.trapezoid(hits, alarms, axis=1)), positives * negatives),
            "auprc": ratio((np.diff(hits, axis=1) * precision).sum(axis=1), np.where(negatives > 0, positives, 0)),
        }

    return statistic


def ratio(numerator: npt.NDArray[np.number], denominator: npt.NDArray[np.number]) -> Values:
    """NaN where there is nothing to divide by."""
    none = denominator == 0
    return np.where(none, np.nan, numerator / np.where(none, 1, denominator))


def _draws(rng: np.random.Generator, patients: int) -> Values:
    """(DRAWN_AT_ONCE, P): how often each patient is drawn."""
    drawn = rng.integers(patients, size=(DRAWN_AT_ONCE, patients)) + patients * np.arange(DRAWN_AT_ONCE)[:, None]
    return np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape).astype(np.float64)


def _interval(point: float, resampled: Values, patients: int) -> Interval | None:
    if math.isnan(point):
        return None
    low, high = np.nanpercentile(resampled, (2.5, 97.5))
    return Interval(point, float(low), float(high), patients)

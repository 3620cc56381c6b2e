"""Scores that only a set of images has, such as an area under a curve, and their intervals over patients.

A statistic takes how much each patient counts. So one formula gives the score itself, every patient once, and what
each patient adds to it, with all its images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from ganseg_dist.metrics.registry import SCORES
from ganseg_dist.metrics.statistics import UNBOUNDED, Interval, Values, interval_of

LEFT_OUT = 0.5
"""Of a patient at a time: of one with all images of a class, as in a set of two, a half still knows both classes."""

Labels = npt.NDArray[np.integer] | npt.NDArray[np.bool_]
Owners = npt.NDArray[np.intp]
"""(N,) index of each image's patient."""
Statistic = Callable[[Values], Mapping[str, Values]]
"""(K,) of each score by name, given how much each of P patients counts (K, P); NaN where those lack a class."""


def intervals(statistic: Statistic, patients: int) -> dict[str, Interval | None]:
    """Each score with its 95% interval over patients; one that needs a class which is not there is None."""
    found: dict[str, Interval | None] = {}
    for name, values in patients_values(statistic, patients).items():
        score = SCORES.get(name.partition("/")[0])
        known = not np.isnan(values).any()
        found[name] = interval_of(values[None], bounds=score.bounds if score else UNBOUNDED) if known else None
    return found


def patients_values(statistic: Statistic, patients: int) -> dict[str, Values]:
    """(P,) of each score: what each patient makes of it, whose mean is the score but for its bias in small sets.

    Jackknife pseudo-values with a share h = LEFT_OUT of a patient left out in place of all of it,

        s + (P - h) (s - s_p) / h,

    which are a mean's own values (Tukey 1958; Efron, The jackknife, the bootstrap and other resampling plans, 1982,
    chapters 3 and 6). They are moved so that their mean is the score s itself.
    """
    weights = np.vstack([np.ones(patients), 1 - LEFT_OUT * np.eye(patients)])
    values = {}
    for name, found in statistic(weights).items():
        of_patients = (patients - LEFT_OUT) * (found[0] - found[1:]) / LEFT_OUT
        values[name] = found[0] + of_patients - of_patients.mean()
    return values


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
            "precision": np.where(true > 0, np.nan_to_num(ratio(hits, called)), np.nan),
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
        # The first images in order may not count; their step of recall is 0 then.
        precision = np.nan_to_num(ratio(hits[:, 1:], called[:, 1:]))
        return {
            "auroc": ratio(np.asarray(np.trapezoid(hits, alarms, axis=1)), positives * negatives),
            "auprc": ratio((np.diff(hits, axis=1) * precision).sum(axis=1), np.where(negatives > 0, positives, 0)),
        }

    return statistic


def ratio(numerator: npt.NDArray[np.number], denominator: npt.NDArray[np.number]) -> Values:
    """NaN where there is nothing to divide by."""
    none = denominator == 0
    return np.where(none, np.nan, numerator / np.where(none, 1, denominator))

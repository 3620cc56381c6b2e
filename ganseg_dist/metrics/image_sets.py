"""Scores of a set of images, such as an area under a curve, and their intervals over patients.

A statistic takes the weight of each patient. One formula thus gives the score itself, with weights of 1, and the
contribution of each patient with all its images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from ganseg_dist.metrics.registry import SCORES
from ganseg_dist.metrics.statistics import UNBOUNDED, Interval, Values, interval_of

LEFT_OUT = 0.5
"""Share of a patient that the jackknife leaves out: the rest still covers both classes where one patient, as in a set
of two, has all images of a class."""

Labels = npt.NDArray[np.integer] | npt.NDArray[np.bool_]
Owners = npt.NDArray[np.intp]
"""(N,) index of each image's patient."""
Statistic = Callable[[Values], Mapping[str, Values]]
"""Weights of P patients, (K, P), to (K,) values of each score; NaN where they lack a class."""


def intervals(statistic: Statistic, patients: int) -> dict[str, Interval | None]:
    """Each score with its 95% interval over patients; None for a score that needs a class without images."""
    scores: dict[str, Interval | None] = {}
    for name, values in patients_values(statistic, patients).items():
        score = SCORES.get(name.partition("/")[0])
        known = not np.isnan(values).any()
        scores[name] = interval_of(values[None], bounds=score.bounds if score else UNBOUNDED) if known else None
    return scores


def patients_values(statistic: Statistic, patients: int) -> dict[str, Values]:
    """(P,) values of each score, one per patient, whose mean is the score.

    Jackknife pseudo-values with a share h = LEFT_OUT of a patient left out instead of the whole patient,

        s + (P - h) (s - s_p) / h,

    which for a mean are its values (Tukey 1958; Efron, The jackknife, the bootstrap and other resampling plans, 1982,
    chapters 3 and 6). They are moved so that their mean is the score s itself.
    """
    weights = np.vstack([np.ones(patients), 1 - LEFT_OUT * np.eye(patients)])
    values = {}
    for name, scores in statistic(weights).items():
        changes = (patients - LEFT_OUT) * (scores[0] - scores[1:]) / LEFT_OUT
        values[name] = scores[0] + changes - changes.mean()
    return values


def confusion_counts(
    truth: Labels, predicted: Labels, owner: Owners, patients: int, classes: int
) -> npt.NDArray[np.intp]:
    """(P, classes, classes): each patient's images by true and predicted class, from (N,) indices of both."""
    cells = np.ravel_multi_index((owner, truth, predicted), (patients, classes, classes))
    return np.bincount(cells, minlength=patients * classes**2).reshape(patients, classes, classes)


def confusion_rates(counts: npt.NDArray[np.integer]) -> Statistic:
    """From `confusion_counts`: precision, recall and f1 of each class, as `recall/0`, and macro, as `recall`.

    precision = TP / (TP + FP), 0 where no image was predicted as the class; recall = TP / (TP + FN);
    f1 = 2 TP / (2 TP + FP + FN). Macro is the mean over the classes that have images. Of two classes, `recall/1` is
    the sensitivity and `recall/0` the specificity.
    """
    patients, classes, _ = counts.shape
    patient_counts = counts.reshape(patients, -1).astype(np.float64)

    def statistic(weights: Values) -> dict[str, Values]:
        confusion = (weights @ patient_counts).reshape(-1, classes, classes)
        hits = np.diagonal(confusion, axis1=1, axis2=2)
        true, predicted = confusion.sum(axis=2), confusion.sum(axis=1)
        class_rates = {  # (K, classes)
            "precision": np.where(true > 0, np.nan_to_num(ratio(hits, predicted)), np.nan),
            "recall": ratio(hits, true),
            "f1": ratio(2 * hits, np.where(true > 0, true + predicted, 0)),
        }
        present = (true > 0).sum(axis=1)
        macro = {name: ratio(np.nansum(rates, axis=1), present) for name, rates in class_rates.items()}
        return macro | {f"{name}/{k}": rates[:, k] for name, rates in class_rates.items() for k in range(classes)}

    return statistic


def curve_areas(positive: npt.NDArray[np.bool_], score: npt.NDArray[np.floating], owner: Owners) -> Statistic:
    """`auroc`, by trapezoids, and `auprc`, the average precision, of (N,) images classified by score.

    auprc = sum_t (recall_t - recall_(t-1)) precision_t over the thresholds t.
    """
    order = np.argsort(-score, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(score[order]), -1))  # equal scores become positive together
    positive_in_order = positive[order]

    def statistic(patient_weights: Values) -> dict[str, Values]:
        weights = patient_weights[:, owner[order]]
        hits, called_positive = (
            np.pad((weights * flags).cumsum(axis=1)[:, ends], ((0, 0), (1, 0))) for flags in (positive_in_order, 1.0)
        )
        alarms = called_positive - hits
        positives, negatives = hits[:, -1], alarms[:, -1]
        # The first images in order may have no weight; their step of recall is then 0.
        precision = np.nan_to_num(ratio(hits[:, 1:], called_positive[:, 1:]))
        return {
            "auroc": ratio(np.asarray(np.trapezoid(hits, alarms, axis=1)), positives * negatives),
            "auprc": ratio((np.diff(hits, axis=1) * precision).sum(axis=1), np.where(negatives > 0, positives, 0)),
        }

    return statistic


def ratio(numerator: npt.NDArray[np.number], denominator: npt.NDArray[np.number]) -> Values:
    """Numerator / denominator; NaN where the denominator is 0."""
    empty = denominator == 0
    return np.where(empty, np.nan, numerator / np.where(empty, 1, denominator))

"""Overlap of two masks: Dice, IoU, sensitivity, specificity. Never NaN."""

from __future__ import annotations

import numpy as np

from ganseg_dist.metrics.masks import Mask, check_masks


def dice_score(prediction: Mask, truth: Mask) -> float:
    """2|P ∩ T| / (|P| + |T|) of two boolean arrays of one shape, in [0, 1]. Both empty 1, one empty 0."""
    check_masks(prediction, truth)
    total = _count(prediction) + _count(truth)
    return 2 * _count(prediction & truth) / total if total else 1.0


def iou_score(prediction: Mask, truth: Mask) -> float:
    """|P ∩ T| / |P ∪ T| of two boolean arrays of one shape, in [0, 1]. Both empty 1, one empty 0."""
    check_masks(prediction, truth)
    union = _count(prediction | truth)
    return _count(prediction & truth) / union if union else 1.0


def sensitivity(prediction: Mask, truth: Mask) -> float:
    """TP / (TP + FN) of two boolean arrays of one shape, in [0, 1].

    Where the truth is empty the ratio is undefined; as with Dice, an empty prediction then scores 1 and any
    other 0, so that an average over cases never rewards a false alarm.
    """
    check_masks(prediction, truth)
    positives = _count(truth)
    if positives:
        return _count(prediction & truth) / positives
    return float(not prediction.any())


def specificity(prediction: Mask, truth: Mask) -> float:
    """TN / (TN + FP) of two boolean arrays of one shape, in [0, 1]: the sensitivity of the background.

    Where the truth fills the image, a prediction that fills it too scores 1 and any other 0.
    """
    return sensitivity(~prediction, ~truth)


def _count(mask: Mask) -> int:
    return int(np.count_nonzero(mask))

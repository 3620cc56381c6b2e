"""Overlap scores of two masks, never NaN, and all segmentation scores of one case as a row of a results table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ganseg_dist.errors import DataError
from ganseg_dist.metrics.lesionwise import lesionwise_scores, paper_lesionwise_dice
from ganseg_dist.metrics.masks import Mask, check_masks
from ganseg_dist.metrics.surface import hd95


def case_scores(
    prediction: Mask,
    truth: Mask,
    regions: Sequence[str],
    spacing_mm: Sequence[float] | None = None,
    *,
    foreground: Mask | None = None,
) -> dict[str, float]:
    """Score (R, X, Y, Z) boolean masks region by region; keys are `region/score`, as in `wt/dice`.

    Scores: `dice`, `iou`, `sensitivity`, `specificity`; `foreground_specificity` within a (X, Y, Z) foreground, because
    over all background specificity is near 1 for any prediction; `hd95_mm`; by the lesion-wise protocol of BraTS 2023
    `lesion_dice`, `lesion_hd95_mm`, `lesion_sensitivity`, `lesion_specificity`, `lesion_f1` and the counts
    `lesions_true`, `lesions_predicted`, `lesions_missed`, `lesions_false_positive`; by GANet-Seg's protocol
    `paper_lesion_dice`. Without `spacing_mm` distances are in pixels, and end in `_px`. Never NaN.

    Raises DataError when the masks are not boolean, differ in shape, or do not fit the regions or the spacing.
    """
    for name, masks in (("prediction", prediction), ("truth", truth)):
        if len(masks) != len(regions):
            raise DataError(f"{name}: {len(masks)} masks for regions {', '.join(regions)}; give one a region")
    scores: dict[str, float] = {}
    for region, predicted, true in zip(regions, prediction, truth, strict=True):
        region_scores = _region_scores(predicted, true, spacing_mm)
        if foreground is not None:
            region_scores["foreground_specificity"] = specificity(predicted[foreground], true[foreground])
        scores |= {f"{region}/{score}": value for score, value in region_scores.items()}
    return scores


def _region_scores(prediction: Mask, truth: Mask, spacing_mm: Sequence[float] | None) -> dict[str, float]:
    unit = "px" if spacing_mm is None else "mm"
    lesions = lesionwise_scores(prediction, truth, spacing_mm)
    return {
        "dice": dice_score(prediction, truth),
        "iou": iou_score(prediction, truth),
        "sensitivity": sensitivity(prediction, truth),
        "specificity": specificity(prediction, truth),
        f"hd95_{unit}": hd95(prediction, truth, spacing_mm),
        "lesion_dice": lesions.dice,
        f"lesion_hd95_{unit}": lesions.hd95,
        "lesion_sensitivity": lesions.sensitivity,
        "lesion_specificity": lesions.specificity,
        "lesion_f1": lesions.detection_f1,
        "lesions_true": float(lesions.n_truth),
        "lesions_predicted": float(lesions.n_predicted),
        "lesions_missed": float(lesions.n_missed),
        "lesions_false_positive": float(lesions.n_false_positive),
        "paper_lesion_dice": paper_lesionwise_dice(prediction, truth),
    }


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

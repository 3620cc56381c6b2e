"""Chooses operating points on validation patients, never on test."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ganseg_dist.data.cohort import Case
from ganseg_dist.data.scan import load_scan
from ganseg_dist.errors import DataError
from ganseg_dist.evaluation.segmentation import region_masks
from ganseg_dist.inference.model_folder import Thresholds
from ganseg_dist.inference.predictor import Predictor
from ganseg_dist.metrics.detection import youden_optimal_threshold
from ganseg_dist.metrics.threshold import BestThreshold, ThresholdScan


def calibrate(
    predictor: Predictor,
    cases: Sequence[Case],
    *,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Thresholds, dict[str, BestThreshold]]:
    """Choose each region's threshold by mean Dice on full volumes, and the slice threshold by Youden's J.

    The Dice is that of the masks that `predict` writes, in which an inner region's voxels belong to the outer ones.
    A region that no case has keeps its default: there is no Dice to choose a threshold by.

    Returns the thresholds and, for each region that some case has, the validation Dice they rest on. Raises DataError
    when there are no validation cases with a mask, or none of their masks holds a region.
    """
    masked = [case for case in cases if case.mask is not None]
    if not masked:
        raise DataError("calibrate: no validation case with a mask; raise data.validation_fraction and train again")
    dice_scan = ThresholdScan(predictor.inside)
    scores: list[float] = []
    abnormal: list[bool] = []
    for index, case in enumerate(masked):
        scan = load_scan(case, predictor.modalities)
        prediction = predictor.predict_scan(scan)
        dice_scan.add(case.id, prediction.probability, region_masks(scan, predictor.regions))
        realism_of_slices, holds_lesion = prediction.realism()
        scores += realism_of_slices.tolist()
        abnormal += holds_lesion.tolist()
        advance(index + 1, len(masked))
    best = {
        region: chosen for region, chosen in zip(predictor.regions, dice_scan.best(), strict=True) if chosen is not None
    }
    if not best:
        raise DataError(
            f"calibrate: the masks of all {len(masked)} validation cases are empty, so that no threshold is better "
            "than another; raise data.validation_fraction and train again"
        )
    realism = youden_optimal_threshold(np.asarray(scores), np.asarray(abnormal)) if scores else None
    thresholds = Thresholds(
        {region: chosen.threshold for region, chosen in best.items()},
        realism,
        len({case.patient for case in masked}),
    )
    return thresholds, best

"""Every score once: its label, its unit, which way is better, and how many of its decimals mean something.

A new score is a line of REGISTERED. What measures it returns it by its name; what chooses, sorts, prints or draws it
asks here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from ganseg_dist.errors import ConfigError
from ganseg_dist.suggestion import suggestion

Mode = Literal["max", "min"]


@dataclass(frozen=True, slots=True)
class Score:
    """One quantity that is measured of a model, whichever region, part of the split or epoch it is measured on."""

    name: str
    label: str
    mode: Mode | None = "max"
    """Which values are better, in Ray Tune's words; None where neither are, as for counts of what is there."""
    decimals: int = 3
    bounds: tuple[float, float] = (0.0, 1.0)
    """Least and largest value, beyond which no interval reaches."""
    units: tuple[str, ...] = ()
    """A distance is in `mm`, or `px` where pixels have no known size; its name in a row of results ends in the unit."""
    of_scan: bool = False
    """Whether it is of one region of a whole scan, by `metrics.segmentation.case_scores`: `wt/dice` in a row of
    results, `dice_wt` among the scores of an epoch."""


ABOVE_0 = (0.0, math.inf)


def _share(name: str, label: str) -> Score:
    return Score(name, label, of_scan=True)


def _distance(name: str, label: str) -> Score:
    return Score(name, label, "min", 1, ABOVE_0, ("mm", "px"), of_scan=True)


def _count(name: str, label: str, mode: Mode | None) -> Score:
    return Score(name, label, mode, 1, ABOVE_0, of_scan=True)


REGISTERED = (
    _share("dice", "Dice"),
    _share("iou", "IoU"),
    _share("sensitivity", "Sensitivity"),
    _share("specificity", "Specificity"),
    _share("body_specificity", "Specificity within the body"),
    _distance("hd95", "HD95"),
    _share("lesion_dice", "Lesion-wise Dice"),
    _distance("lesion_hd95", "Lesion-wise HD95"),
    _share("lesion_sensitivity", "Lesion-wise sensitivity"),
    _share("lesion_specificity", "Lesion-wise specificity"),
    _share("lesion_f1", "Lesion F1"),
    _count("lesions_true", "Lesions, true", None),
    _count("lesions_predicted", "Lesions, predicted", None),
    _count("lesions_missed", "Lesions, missed", "min"),
    _count("lesions_false_positive", "Lesions, false positive", "min"),
    _share("paper_lesion_dice", "Lesion-wise Dice, GANet-Seg protocol"),
    Score("accuracy", "Accuracy"),
    Score("balanced_accuracy", "Balanced accuracy"),
    Score("precision", "Precision"),
    Score("recall", "Recall"),
    Score("f1", "F1"),
    Score("auroc", "AUROC"),
    Score("auprc", "AUPRC"),
    Score("youden_j", "Youden's J", bounds=(-1.0, 1.0)),
    Score("expected_calibration_error", "Expected calibration error", "min"),
    Score("cross_entropy", "Cross-entropy", "min", bounds=ABOVE_0),
    Score("hole_l1", "L1 in the holes", "min", 4, ABOVE_0),
    Score("l1", "L1 to the real one", "min", 4, ABOVE_0),
    Score("ssim", "SSIM", bounds=(-1.0, 1.0)),
    Score("diversity", "Diversity", None, bounds=ABOVE_0),
    Score("relative_diversity", "Relative diversity", None, bounds=ABOVE_0),
    Score("presence", "Presence in the mask", None, bounds=ABOVE_0),
    Score("epsilon", "Privacy spent, ε", "min", bounds=ABOVE_0),
)
"""Images are called as a whole (`accuracy` and what follows), generated ones compared with real ones (`l1` and what
follows); `epsilon` is what differential privacy has promised by then."""

SCORES = {score.name: score for score in REGISTERED}


def score_called(name: str) -> Score:
    """Of `dice`, `wt/dice`, `val/dice_wt`, `wt/hd95_mm`: what stands before a slash, and units, are left out, and of
    scores of scans a region at the end.

    Raises ConfigError for a name that is not registered.
    """
    bare = name.rpartition("/")[2]
    if bare in SCORES:
        return SCORES[bare]
    for score in REGISTERED:
        region_or_unit = bare.removeprefix(f"{score.name}_")
        if region_or_unit not in (bare, "") and (score.of_scan or region_or_unit in score.units):
            return score
    region, known = bare.rpartition("_")[2], f"the scores are {', '.join(SCORES)}"
    names = [*SCORES, *(f"{score.name}_{region}" for score in REGISTERED if score.of_scan)]
    raise ConfigError(f"{name}: is no score; {suggestion(bare, names, known)}")


def common_mode(names: Iterable[str]) -> Mode | None:
    """Which way is better for several scores at once, such as those whose mean chooses an epoch; None for none.

    Raises ConfigError where one is not registered, is better neither way, or is better the other way.
    """
    modes = {name: score_called(name).mode for name in names}
    if None in modes.values():
        neither = next(name for name, mode in modes.items() if mode is None)
        raise ConfigError(f"{neither}: is better neither large nor small; choose by another score")
    if len(set(modes.values())) > 1:
        raise ConfigError(f"{', '.join(modes)}: some are better large, others small; take those of one direction")
    return next(iter(modes.values()), None)

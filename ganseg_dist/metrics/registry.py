"""Registry of all scores: label, unit, direction of better values, and meaningful decimals.

A new score is a line of REGISTERED. Code that measures a score returns it by its name; code that sorts, prints or
plots scores looks them up here.
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
    """One quantity measured of a model, for any region, part of the split or epoch."""

    name: str
    label: str
    mode: Mode | None = "max"
    """Direction of better values, in Ray Tune's terms; None where there is none, as for numbers of lesions."""
    decimals: int = 3
    bounds: tuple[float, float] = (0.0, 1.0)
    """Least and largest value, to which intervals are clipped."""
    units: tuple[str, ...] = ()
    """A distance is in `mm`, or `px` where pixel sizes are unknown; its name in a row of results ends in the unit."""
    of_scan: bool = False
    """Whether it is measured on one region of a whole scan by `metrics.segmentation.case_scores`: `wt/dice` in a row
    of results, `dice_wt` among the scores of an epoch."""
    needs_foreground: bool = False
    """Whether it needs the image's foreground beside the masks."""


ABOVE_0 = (0.0, math.inf)


def _share(name: str, label: str, *, needs_foreground: bool = False) -> Score:
    return Score(name, label, of_scan=True, needs_foreground=needs_foreground)


def _distance(name: str, label: str) -> Score:
    return Score(name, label, "min", 1, ABOVE_0, ("mm", "px"), of_scan=True)


def _count(name: str, label: str, mode: Mode | None) -> Score:
    return Score(name, label, mode, 1, ABOVE_0, of_scan=True)


REGISTERED = (
    _share("dice", "Dice"),
    _share("iou", "IoU"),
    _share("sensitivity", "Sensitivity"),
    _share("specificity", "Specificity"),
    _share("foreground_specificity", "Specificity within the foreground", needs_foreground=True),
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
"""From `accuracy` on, scores are of classified images; from `l1` on, of generated images compared with real ones;
`epsilon` is the privacy spent so far."""

SCORES = {score.name: score for score in REGISTERED}


def find_score(name: str) -> Score:
    """The score of a name such as `dice`, `wt/dice`, `val/dice_wt` or `wt/hd95_mm`: a prefix up to a slash, a unit, and
    a scan score's region at the end are ignored.

    Raises ConfigError for a name that is not registered.
    """
    bare = name.rpartition("/")[2]
    if bare in SCORES:
        return SCORES[bare]
    for score in REGISTERED:
        region_or_unit = bare.removeprefix(f"{score.name}_")
        if region_or_unit not in (bare, "") and (score.of_scan or region_or_unit in score.units):
            return score
    region, listed = bare.rpartition("_")[2], f"the scores are {', '.join(SCORES)}"
    names = [*SCORES, *(f"{score.name}_{region}" for score in REGISTERED if score.of_scan)]
    raise ConfigError(f"{name}: is no score; {suggestion(bare, names, listed)}")


def common_mode(names: Iterable[str]) -> Mode | None:
    """The common direction of several scores, such as those whose mean selects an epoch; None for no scores.

    Raises ConfigError where a score is not registered or has no direction, or where directions differ.
    """
    modes = {name: find_score(name).mode for name in names}
    if None in modes.values():
        neither = next(name for name, mode in modes.items() if mode is None)
        raise ConfigError(f"{neither}: is better neither large nor small; choose by another score")
    if len(set(modes.values())) > 1:
        raise ConfigError(f"{', '.join(modes)}: some are better large, others small; take those of one direction")
    return next(iter(modes.values()), None)

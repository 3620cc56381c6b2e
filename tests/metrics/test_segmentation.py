import math

import numpy as np
import pytest

from ganseg_dist.errors import DataError
from ganseg_dist.metrics.registry import REGISTERED
from ganseg_dist.metrics.segmentation import case_scores


def two_regions():
    truth = np.zeros((2, 20, 20, 10), bool)
    truth[0, 4:12, 4:12, 2:8] = True
    prediction = np.roll(truth, 1, axis=1)
    return prediction, truth


def test_case_scores_are_flat_with_units_in_names():
    prediction, truth = two_regions()
    scores = case_scores(prediction, truth, ("wt", "et"), (1.0, 1.0, 1.0))
    assert len(scores) == 2 * sum(score.of_scan and score.name != "foreground_specificity" for score in REGISTERED)
    assert scores["wt/dice"] == scores["wt/lesion_dice"] == scores["wt/paper_lesion_dice"] == pytest.approx(7 / 8)
    assert scores["wt/iou"] == pytest.approx(7 / 9)
    assert scores["wt/hd95_mm"] == scores["wt/lesion_hd95_mm"] == 1
    assert scores["wt/lesions_true"] == 1
    # The second region is empty in both.
    assert [scores[f"et/{name}"] for name in ("dice", "hd95_mm", "lesion_dice", "lesions_true")] == [1, 0, 1, 0]
    assert {type(value) for value in scores.values()} == {float}
    assert all(math.isfinite(value) for value in scores.values())


def test_foreground_specificity_excludes_air():
    truth, prediction, foreground = (np.zeros((10, 10, 2), bool) for _ in range(3))
    foreground[:5, :, 0] = True
    truth[:2, :5, 0] = True
    prediction[:4, :5, 0] = True
    scores = case_scores(prediction[None], truth[None], ["wt"], foreground=foreground)
    assert scores["wt/foreground_specificity"] == pytest.approx(
        1 - 10 / 40
    )  # 40 of the foreground's 50 pixels are healthy
    assert scores["wt/specificity"] == pytest.approx(1 - 10 / 190)


def test_case_scores_without_spacing_are_in_pixels():
    prediction, truth = two_regions()
    scores = case_scores(prediction, truth, ("wt", "et"))
    assert {name.split("/")[1] for name in scores if "hd95" in name} == {"hd95_px", "lesion_hd95_px"}
    assert scores["wt/hd95_px"] == 1


def test_case_scores_reject_mismatch_of_masks_and_regions():
    prediction, truth = two_regions()
    with pytest.raises(DataError, match="prediction: 2 masks for regions wt"):
        case_scores(prediction, truth, ("wt",))

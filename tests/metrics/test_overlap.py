import numpy as np
import pytest

from ganseg_dist.metrics.segmentation import dice_score, iou_score, sensitivity, specificity

SCORES = (dice_score, iou_score, sensitivity, specificity)


def test_overlap_scores_of_shifted_boxes_match_hand_computation():
    prediction, truth = np.zeros((10, 10), bool), np.zeros((10, 10), bool)
    truth[2:6, 2:6] = True  # 16 pixels
    prediction[4:8, 2:7] = True  # 20 pixels, 8 of them true
    assert dice_score(prediction, truth) == pytest.approx(16 / 36)
    assert iou_score(prediction, truth) == pytest.approx(8 / 28)
    assert sensitivity(prediction, truth) == pytest.approx(8 / 16)
    assert specificity(prediction, truth) == pytest.approx(72 / 84)


@pytest.mark.parametrize("shape", [(4,), (4, 4), (3, 4, 5)])
def test_overlap_scores_of_two_empty_masks_are_one(shape):
    empty = np.zeros(shape, bool)
    assert [score(empty, empty) for score in SCORES] == [1, 1, 1, 1]


def test_overlap_scores_of_one_empty_mask():
    empty, some = np.zeros((4, 4), bool), np.eye(4, dtype=bool)
    assert [score(some, empty) for score in SCORES] == [0, 0, 0, 12 / 16]
    assert [score(empty, some) for score in SCORES] == [0, 0, 0, 1]


def test_specificity_without_background_is_one_only_if_perfect():
    full, some = np.ones((4, 4), bool), np.eye(4, dtype=bool)
    assert specificity(full, full) == 1
    assert specificity(some, full) == 0

import numpy as np
import pytest

from ganseg_dist.data.nesting import regions_at
from ganseg_dist.errors import DataError
from ganseg_dist.metrics.segmentation import dice_score
from ganseg_dist.metrics.threshold import (
    FEWEST_PATIENTS,
    THRESHOLDS,
    BestThreshold,
    ThresholdScan,
    few_patients_warning,
)


def test_threshold_scan_dice_matches_hand_computation():
    scan = ThresholdScan(thresholds=(0.3, 0.6))
    scan.add("a", np.array([[0.1, 0.3, 0.5, 0.9]]), np.array([[False, False, True, True]]))
    # At 0.3 three are predicted, two of them true; at 0.6 one, true.
    assert scan.dice().tolist() == [[pytest.approx(4 / 5), pytest.approx(2 / 3)]]
    (best,) = scan.best()
    assert (best.threshold, best.dice, best.n) == (0.3, pytest.approx(4 / 5), 1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_threshold_scan_dice_equals_thresholded_volumes(dtype):
    rng = np.random.default_rng(0)
    scan = ThresholdScan()
    expected = []
    for case in range(4):
        truth = rng.random((1, 6, 7, 8)) < 0.2
        # Two decimals, so that many probabilities stand exactly on a threshold.
        probabilities = np.clip(0.3 * truth + rng.random(truth.shape), 0, 1).round(2).astype(dtype)
        scan.add(str(case), probabilities, truth)
        expected.append([dice_score(probabilities >= threshold, truth) for threshold in THRESHOLDS])
    assert scan.dice() == pytest.approx(np.array(expected), abs=1e-12)
    means = np.mean(expected, axis=0)
    assert scan.best()[0].dice == pytest.approx(means.max())
    assert scan.best()[0].threshold == THRESHOLDS[int(means.argmax())]


def test_threshold_scan_accepts_case_slice_by_slice():
    rng = np.random.default_rng(0)
    probabilities, truth = rng.random((1, 5, 6, 4)), rng.random((1, 5, 6, 4)) < 0.3
    whole, sliced = ThresholdScan(), ThresholdScan()
    whole.add("a", probabilities, truth)
    for z in range(4):
        sliced.add("a", probabilities[..., z], truth[..., z])
    assert sliced.dice().tolist() == whole.dice().tolist()
    assert sliced.best()[0].n == 1


def test_threshold_scan_scores_empty_masks_as_dice_score():
    scan = ThresholdScan(thresholds=(0.5,))
    scan.add("both empty", np.zeros((1, 4)), np.zeros((1, 4), bool))
    scan.add("truth empty", np.ones((1, 4)), np.zeros((1, 4), bool))
    scan.add("prediction empty", np.zeros((1, 4)), np.ones((1, 4), bool))
    assert scan.dice()[:, 0].tolist() == [1, 0, 0]


def test_threshold_scan_best_ignores_cases_without_lesion():
    scan = ThresholdScan(thresholds=(0.3, 0.7))
    scan.add("healthy", np.array([[0.5, 0.0]]), np.array([[False, False]]))  # Dice 0, then 1
    assert scan.best() == (None,)
    scan.add("with lesion", np.array([[0.5, 0.0]]), np.array([[True, False]]))  # Dice 1, then 0
    assert scan.best() == (BestThreshold(0.3, 1.0, 1),)


def test_threshold_scan_best_is_middle_of_equal_thresholds():
    scan = ThresholdScan()
    scan.add("a", np.array([[0.0, 1.0]]), np.array([[False, True]]))
    assert scan.best()[0].threshold == 0.5


NESTED = ((0, 1, 2), (1, 2), (2,))


def test_threshold_scan_counts_inner_voxels_in_outer_region():
    """The outer region's own probabilities miss a voxel of the inner one, and are too high elsewhere."""
    scan = ThresholdScan(((0, 1), (1,)), (0.2, 0.5, 0.8))
    outer, inner = [0.1, 0.6, 0.3, 0.3], [0.9, 0.0, 0.0, 0.0]
    scan.add("a", np.array([outer, inner]), np.array([[1, 1, 0, 0], [1, 0, 0, 0]], bool))
    # Alone the outer region would have Dice 2/3 at 0.5 (one of two found); with the inner voxel it is perfect.
    assert scan.best() == (BestThreshold(0.5, 1.0, 1), BestThreshold(0.5, 1.0, 1))
    assert scan.dice(0, [None, 0.5]).tolist() == [[pytest.approx(2 / 3), 1.0, pytest.approx(2 / 3)]]


def test_threshold_scan_best_dice_equals_that_of_nested_masks():
    rng = np.random.default_rng(3)
    scan, cases = ThresholdScan(NESTED), []
    for case in range(3):
        depth = rng.integers(0, 4, (6, 7, 8))
        truth = np.stack([depth > region for region in range(3)])
        probability = np.clip(0.4 * truth + 0.6 * rng.random(truth.shape), 0, 1).astype(np.float32)
        scan.add(str(case), probability, truth)
        cases.append((probability, truth))
    best = scan.best()
    assert len({one.threshold for one in best}) > 1
    for row in range(3):
        # The best of all thresholds of this region, given those inside it.
        dice = []
        for threshold in THRESHOLDS:
            cut = [threshold if inner == row else best[inner].threshold for inner in range(3)]
            masks = [(regions_at(probability, cut, NESTED)[row], truth[row]) for probability, truth in cases]
            dice.append(np.mean([dice_score(*pair) for pair in masks]))
        assert best[row].dice == pytest.approx(max(dice), abs=1e-12)
        assert THRESHOLDS[int(np.argmax(dice))] == best[row].threshold


def test_threshold_scan_uses_half_for_absent_inner_region():
    scan = ThresholdScan(((0, 1), (1,)))
    scan.add("a", np.array([[0.1, 0.9], [0.6, 0.0]]), np.array([[1, 1], [0, 0]], bool))
    outer, inner = scan.best()
    assert inner is None
    assert (outer.dice, outer.n) == (1.0, 1)


def test_threshold_scan_rejects_invalid_inputs():
    scan = ThresholdScan()
    with pytest.raises(DataError, match="no case was added"):
        scan.best()
    with pytest.raises(DataError, match="a: probabilities outside"):
        scan.add("a", np.array([[np.nan]]), np.array([[True]]))
    with pytest.raises(DataError, match="a: probabilities outside"):
        scan.add("a", np.array([[3.0]]), np.array([[True]]))
    with pytest.raises(DataError, match="boolean truth of the same shape"):
        scan.add("a", np.array([[0.5]]), np.array([[1]]))
    with pytest.raises(DataError, match="ascending values"):
        ThresholdScan(thresholds=(0.5, 0.5))


def test_few_patients_warning_is_given_below_minimum():
    assert few_patients_warning(3).startswith("chosen on 3 validation patients, too few to hold on others")
    assert few_patients_warning(1).startswith("chosen on 1 validation patient,")
    assert [few_patients_warning(patients) for patients in (0, FEWEST_PATIENTS, 40)] == [None] * 3

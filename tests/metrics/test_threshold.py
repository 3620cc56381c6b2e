import numpy as np
import pytest

from ganseg_dist.errors import DataError
from ganseg_dist.metrics.overlap import dice_score
from ganseg_dist.metrics.threshold import THRESHOLDS, BestThreshold, ThresholdScan


def test_dice_by_hand():
    scan = ThresholdScan((0.3, 0.6))
    scan.add("a", np.array([0.1, 0.3, 0.5, 0.9]), np.array([False, False, True, True]))
    # At 0.3 three are predicted, two of them true; at 0.6 one, true.
    assert scan.dice().tolist() == [[pytest.approx(4 / 5), pytest.approx(2 / 3)]]
    best = scan.best()
    assert (best.threshold, best.dice, best.n) == (0.3, pytest.approx(4 / 5), 1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equals_thresholding_the_volumes(dtype):
    rng = np.random.default_rng(0)
    scan = ThresholdScan()
    expected = []
    for case in range(4):
        truth = rng.random((6, 7, 8)) < 0.2
        # Two decimals, so that many probabilities stand exactly on a threshold.
        probabilities = np.clip(0.3 * truth + rng.random(truth.shape), 0, 1).round(2).astype(dtype)
        scan.add(str(case), probabilities, truth)
        expected.append([dice_score(probabilities >= threshold, truth) for threshold in THRESHOLDS])
    assert scan.dice() == pytest.approx(np.array(expected), abs=1e-12)
    means = np.mean(expected, axis=0)
    assert scan.best().dice == pytest.approx(means.max())
    assert scan.best().threshold == THRESHOLDS[int(means.argmax())]


def test_a_case_may_come_slice_by_slice():
    rng = np.random.default_rng(0)
    probabilities, truth = rng.random((5, 6, 4)), rng.random((5, 6, 4)) < 0.3
    whole, sliced = ThresholdScan(), ThresholdScan()
    whole.add("a", probabilities, truth)
    for z in range(4):
        sliced.add("a", probabilities[..., z], truth[..., z])
    assert sliced.dice().tolist() == whole.dice().tolist()
    assert sliced.best().n == 1


def test_empties_score_as_dice_does():
    scan = ThresholdScan((0.5,))
    scan.add("both empty", np.zeros(4), np.zeros(4, bool))
    scan.add("truth empty", np.ones(4), np.zeros(4, bool))
    scan.add("prediction empty", np.zeros(4), np.ones(4, bool))
    assert scan.dice()[:, 0].tolist() == [1, 0, 0]


def test_cases_without_the_lesion_choose_only_where_there_are_no_others():
    scan = ThresholdScan((0.3, 0.7))
    scan.add("healthy", np.array([0.5, 0.0]), np.array([False, False]))  # Dice 0, then 1
    assert scan.best() == BestThreshold(0.7, 1.0, 1)
    scan.add("ill", np.array([0.5, 0.0]), np.array([True, False]))  # Dice 1, then 0
    assert scan.best() == BestThreshold(0.3, 1.0, 1)


def test_of_equal_thresholds_the_middle_one_is_taken():
    scan = ThresholdScan()
    scan.add("a", np.array([0.0, 1.0]), np.array([False, True]))
    assert scan.best().threshold == 0.5


def test_errors_say_what_to_mend():
    scan = ThresholdScan()
    with pytest.raises(DataError, match="no case was added"):
        scan.best()
    with pytest.raises(DataError, match="a: probabilities outside"):
        scan.add("a", np.array([np.nan]), np.array([True]))
    with pytest.raises(DataError, match="a: probabilities outside"):
        scan.add("a", np.array([3.0]), np.array([True]))
    with pytest.raises(DataError, match="boolean truth of the same shape"):
        scan.add("a", np.array([0.5]), np.array([1]))
    with pytest.raises(DataError, match="ascending values"):
        ThresholdScan((0.5, 0.5))

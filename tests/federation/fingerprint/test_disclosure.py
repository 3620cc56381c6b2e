import numpy as np
import pytest

from ganseg_dist.federation.fingerprint.disclosure import disclose


def of_patients(*bins: int, width: int) -> np.ndarray:
    """Each patient's 100 points in one bin."""
    points = np.zeros((len(bins), width), np.int64)
    points[np.arange(len(bins)), bins] = 100
    return points


def test_disclose_keeps_bins_of_enough_patients():
    points = of_patients(0, 0, 0, 2, 2, 2, 2, width=3)
    for apart in (0, 1, 3):
        assert disclose(points, apart, 3).tolist() == [300, 0, 400, 0]


def test_disclose_merges_rare_bin_into_nearest_neighbour():
    assert disclose(of_patients(0, 0, 0, 3, 5, 5, 5, width=6), 0, 3).tolist() == [300, 0, 0, 0, 0, 400, 0]
    assert disclose(of_patients(0, 0, 0, 1, 5, 5, 5, width=6), 0, 3).tolist() == [400, 0, 0, 0, 0, 300, 0]


def test_disclose_merges_rare_neighbours():
    assert disclose(of_patients(0, 1, 1, 5, 5, 5, width=6), 0, 3).tolist() == [0, 300, 0, 0, 0, 300, 0]


def test_disclose_withholds_two_rarest_groups():
    points = of_patients(0, 1, 1, 1, 2, 2, 2, 2, width=3)
    assert disclose(points, 3, 3).tolist() == [0, 0, 400, 400]
    assert disclose(of_patients(0, 1, 2, 2, 2, 2, width=3), 3, 2).tolist() == [0, 0, 400, 200]


def test_disclose_withholds_whole_scale_of_few_patients():
    points = of_patients(0, 0, 0, 0, 3, 4, width=5)
    assert disclose(points, 1, 2).tolist() == [400, 0, 0, 200, 0, 0]
    assert disclose(points, 1, 3).tolist() == [0, 0, 0, 0, 0, 600]


def test_disclose_limits_share_of_one_patient_to_half():
    points = np.array([[90, 10], [1, 99], [1, 99], [1, 99]])
    assert disclose(points, 2, 3).tolist() == [0, 0, 400]
    assert disclose(points, 0, 3).tolist() == [0, 400, 0]
    assert disclose(points, 0, 1).tolist() == [93, 307, 0]


@pytest.mark.parametrize("apart", [0, 1, 4])
def test_disclose_withholds_everything_below_minimum(apart):
    assert disclose(of_patients(0, 1, 2, 3, width=4), apart, 5).tolist() == [0, 0, 0, 0, 400]


def test_disclose_keeps_everything_for_minimum_of_one():
    points = np.array([[7, 0, 93], [0, 100, 0]])
    assert disclose(points, 1, 1).tolist() == [7, 100, 93, 0]


@pytest.mark.parametrize("minimum", [2, 3, 5])
def test_disclose_protects_random_histograms(minimum):
    rng = np.random.default_rng(minimum)
    disclosed_bins = 0
    for _ in range(300):
        patients, width = rng.integers(1, 15), int(rng.integers(1, 8))
        apart = int(rng.integers(0, width + 1))
        points = rng.multinomial(100, rng.dirichlet(np.full(width, 0.2)), size=patients)
        disclosed = disclose(points, apart, minimum)
        assert disclosed.sum() == 100 * patients
        groups = np.column_stack([points[:, :apart], points[:, apart:].sum(axis=1)])
        shown = np.append(disclosed[:apart] > 0, disclosed[apart:-1].any())
        for group, is_shown in zip(groups.T, shown, strict=True):
            if is_shown:
                assert np.count_nonzero(group) >= minimum
                assert group.max() <= group.sum() / 2
        hidden = groups[:, ~shown].sum(axis=1)
        if hidden.any() and shown.any():
            assert np.count_nonzero(hidden) >= minimum
            assert hidden.max() <= hidden.sum() / 2
        for number, bins in _joined(disclosed[apart:-1], points[:, apart:]):
            disclosed_bins += 1
            assert points[:, apart:][:, bins].sum() == number
            assert np.count_nonzero(points[:, apart:][:, bins].sum(axis=1)) >= minimum
    assert disclosed_bins > 100


def _joined(disclosed, scale):
    """The disclosed numbers of a scale, and the neighbouring bins that each is the sum of."""
    totals, start = scale.sum(axis=0), 0
    for number in disclosed[disclosed > 0]:
        end = start + 1
        while totals[start:end].sum() < number:
            end += 1
        yield number, list(range(start, end))
        start = end

import numpy as np
import pytest

from ganseg_dist.federation.fingerprint.disclosure import disclose


def of_patients(*bins: int, width: int) -> np.ndarray:
    """Each patient's 100 points in one bin."""
    points = np.zeros((len(bins), width), np.int64)
    points[np.arange(len(bins)), bins] = 100
    return points


def test_what_stands_for_enough_patients_is_told_as_it_is():
    points = of_patients(0, 0, 0, 2, 2, 2, 2, width=3)
    for apart in (0, 1, 3):
        assert disclose(points, apart, 3).tolist() == [300, 0, 400, 0]


def test_a_rare_bin_of_a_scale_joins_its_nearest_neighbour_and_the_fuller_one_has_the_sum():
    assert disclose(of_patients(0, 0, 0, 3, 5, 5, 5, width=6), 0, 3).tolist() == [300, 0, 0, 0, 0, 400, 0]
    assert disclose(of_patients(0, 0, 0, 1, 5, 5, 5, width=6), 0, 3).tolist() == [400, 0, 0, 0, 0, 300, 0]


def test_rare_neighbours_are_enough_together():
    assert disclose(of_patients(0, 1, 1, 5, 5, 5, width=6), 0, 3).tolist() == [0, 300, 0, 0, 0, 300, 0]


def test_a_rare_group_is_withheld_with_the_next_rarest_so_that_it_is_not_the_rest_of_all():
    points = of_patients(0, 1, 1, 1, 2, 2, 2, 2, width=3)
    assert disclose(points, 3, 3).tolist() == [0, 0, 400, 400]
    assert disclose(of_patients(0, 1, 2, 2, 2, 2, width=3), 3, 2).tolist() == [0, 0, 400, 200]


def test_a_scale_on_which_few_stand_is_withheld_as_a_whole():
    points = of_patients(0, 0, 0, 0, 3, 4, width=5)
    assert disclose(points, 1, 2).tolist() == [400, 0, 0, 200, 0, 0]
    assert disclose(points, 1, 3).tolist() == [0, 0, 0, 0, 0, 600]


def test_nobody_makes_up_more_than_half_of_a_number():
    points = np.array([[90, 10], [1, 99], [1, 99], [1, 99]])
    assert disclose(points, 2, 3).tolist() == [0, 0, 400]
    assert disclose(points, 0, 3).tolist() == [0, 400, 0]
    assert disclose(points, 0, 1).tolist() == [93, 307, 0]


@pytest.mark.parametrize("apart", [0, 1, 4])
def test_a_site_with_fewer_patients_than_the_minimum_tells_how_many_they_are_and_nothing_else(apart):
    assert disclose(of_patients(0, 1, 2, 3, width=4), apart, 5).tolist() == [0, 0, 0, 0, 400]


def test_a_minimum_of_one_tells_everything():
    points = np.array([[7, 0, 93], [0, 100, 0]])
    assert disclose(points, 1, 1).tolist() == [7, 100, 93, 0]


@pytest.mark.parametrize("minimum", [2, 3, 5])
def test_every_number_of_any_histogram_stands_for_enough_patients(minimum):
    rng = np.random.default_rng(minimum)
    told = 0
    for _ in range(300):
        patients, width = rng.integers(1, 15), int(rng.integers(1, 8))
        apart = int(rng.integers(0, width + 1))
        points = rng.multinomial(100, rng.dirichlet(np.full(width, 0.2)), size=patients)
        disclosed = disclose(points, apart, minimum)
        assert disclosed.sum() == 100 * patients
        groups = np.column_stack([points[:, :apart], points[:, apart:].sum(axis=1)])
        shown = np.append(disclosed[:apart] > 0, disclosed[apart:-1].any())
        for group, is_told in zip(groups.T, shown, strict=True):
            if is_told:
                assert np.count_nonzero(group) >= minimum
                assert group.max() <= group.sum() / 2
        hidden = groups[:, ~shown].sum(axis=1)
        if hidden.any() and shown.any():
            assert np.count_nonzero(hidden) >= minimum
            assert hidden.max() <= hidden.sum() / 2
        for number, bins in _joined(disclosed[apart:-1], points[:, apart:]):
            told += 1
            assert points[:, apart:][:, bins].sum() == number
            assert np.count_nonzero(points[:, apart:][:, bins].sum(axis=1)) >= minimum
    assert told > 100


def _joined(disclosed, scale):
    """The numbers told on a scale, and the neighbouring bins that each is the sum of."""
    totals, start = scale.sum(axis=0), 0
    for number in disclosed[disclosed > 0]:
        end = start + 1
        while totals[start:end].sum() < number:
            end += 1
        yield number, list(range(start, end))
        start = end

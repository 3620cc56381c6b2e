import numpy as np
import pytest

from ganseg_dist.federation.updates import change_of, norm_of

BIG = np.float32(3e38)


def test_change_is_of_the_weights_that_came_back_in_float64():
    sent = {"a": np.float32([1, -BIG]), "b": np.float32([5])}
    change = change_of({"a": np.float32([4, BIG])}, sent)
    assert change.keys() == {"a"}
    assert change["a"].tolist() == [3.0, 2 * float(BIG)]


def test_norm_is_that_of_all_tensors_as_one_vector():
    assert norm_of({"a": np.array([[3.0]]), "b": np.array([0.0, 4.0])}) == 5
    assert norm_of({"a": np.array([3.0, 4.0]) * float(BIG)}) == pytest.approx(5 * float(BIG))
    assert norm_of({}) == 0

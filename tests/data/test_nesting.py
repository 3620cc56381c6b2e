import numpy as np
import pytest
import torch

from ganseg_dist.data.labels import BRATS
from ganseg_dist.data.nesting import regions_at, rows_inside
from ganseg_dist.systems.regions import likely_regions


def test_rows_inside_follow_from_labels():
    assert BRATS.rows_inside(("wt", "tc", "et")) == ((0, 1, 2), (1, 2), (2,))
    assert BRATS.rows_inside(("et", "wt")) == ((0,), (0, 1))
    overlapping = {"a": ("x", "y"), "b": ("y", "z"), "all": ("x", "y", "z")}
    assert rows_inside(("a", "b", "all"), overlapping) == ((0,), (1,), (0, 1, 2))


def test_regions_at_puts_inner_voxels_into_outer_regions():
    probability = np.array([[0.95, 0.2, 0.2, 0.2], [0.0, 0.6, 0.2, 0.2], [0.0, 0.0, 0.15, 0.05]], np.float32)
    masks = regions_at(probability, (0.9, 0.5, 0.1), BRATS.rows_inside(("wt", "tc", "et")))
    assert masks.astype(int).tolist() == [[1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 1, 0]]


def test_regions_at_compares_threshold_in_float32():
    probability = np.full((1, 2), 0.1, np.float32)  # 0.1 as float64 is a little less
    assert regions_at(probability, (0.1,), ((0,),)).all()


@pytest.mark.parametrize("regions", [("wt",), ("wt", "et"), ("wt", "tc", "et")])
def test_likely_regions_equals_regions_at_half(regions):
    probability = np.random.default_rng(0).random((2, len(regions), 5, 4)).astype(np.float32)
    probability[0, 0, 0, 0] = 0.5
    likely = likely_regions(torch.from_numpy(probability), regions).numpy()
    for masks, one in zip(likely, probability, strict=True):
        assert np.array_equal(masks, regions_at(one, [0.5] * len(regions), BRATS.rows_inside(regions)))

import numpy as np
import pytest

from ganseg_dist.errors import DataError
from ganseg_dist.metrics.masks import pair_masks


def masks(shape):
    return np.zeros(shape, bool), np.zeros(shape, bool)


def test_pair_masks_diagonal_of_brats_volume():
    assert pair_masks(*masks((240, 240, 155)), (1, 1, 1)).diagonal == pytest.approx(373.13, abs=5e-3)


def test_cropped_is_bounding_box_of_union():
    prediction, truth = masks((10, 10, 10))
    prediction[1, 4, 5] = truth[3, 4, 9] = True
    near = pair_masks(prediction, truth).cropped()
    assert near.truth.shape == (3, 1, 5)
    assert np.argwhere(near.prediction).tolist() == [[0, 0, 0]]
    assert np.argwhere(near.truth).tolist() == [[2, 0, 4]]


def test_pair_masks_drops_singleton_axis():
    pair = pair_masks(*masks((30, 40, 1)), (1.0, 1.0, 5.0))
    assert pair.truth.shape == (30, 40)
    assert pair.diagonal == 50
    assert pair_masks(*masks((1, 1, 1))).truth.shape == (1,)


@pytest.mark.parametrize(
    ("prediction", "truth", "spacing", "message"),
    [
        (np.zeros((2, 2), np.float32), np.zeros((2, 2), bool), None, "prediction: is float32, not boolean"),
        (np.zeros((2, 2), bool), np.zeros((2, 3), bool), None, r"shape \(2, 2\) differs from the truth's \(2, 3\)"),
        (np.zeros((0, 2), bool), np.zeros((0, 2), bool), None, "holds no voxels"),
        (np.zeros((2, 2), bool), np.zeros((2, 2), bool), (1, 1, 1), "spacing_mm"),
        (np.zeros((2, 2), bool), np.zeros((2, 2), bool), (1, float("nan")), "spacing_mm"),
    ],
)
def test_pair_masks_rejects_invalid_inputs(prediction, truth, spacing, message):
    with pytest.raises(DataError, match=message):
        pair_masks(prediction, truth, spacing)

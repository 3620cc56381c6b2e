import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from ganseg_dist.metrics.surface import hd95, surface_voxels
from tests.metrics.plain_lesionwise import plain_hd95


def blobs(seed, shape):
    noise = gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 2)
    return noise > np.quantile(noise, 0.9)


def test_hd95_of_single_voxels_is_distance_of_centres():
    prediction, truth = np.zeros((9, 9, 9), bool), np.zeros((9, 9, 9), bool)
    prediction[1, 1, 1] = truth[4, 5, 1] = True
    assert hd95(prediction, truth) == 5
    assert hd95(prediction, truth, (2, 1, 1)) == pytest.approx(np.hypot(6, 4))


def test_hd95_of_shifted_line_matches_hand_computation():
    prediction, truth = np.zeros((40, 3), bool), np.zeros((40, 3), bool)
    truth[0:20, 1] = True
    prediction[10:30, 1] = True
    # Distances to the truth: ten of 0, then 1..10; the 95th percentile stands at 0.95 * 19 = 18.05.
    assert hd95(prediction, truth, (3.0, 1.0)) == pytest.approx(3 * 9.05)


def test_hd95_is_the_larger_directed_distance():
    prediction, truth = np.zeros((30, 5), bool), np.zeros((30, 5), bool)
    prediction[2, 2] = truth[2, 2] = truth[12, 2] = True
    # From the prediction 0; from the truth {0, 10}, whose 95th percentile is 9.5.
    assert hd95(prediction, truth) == hd95(truth, prediction) == pytest.approx(9.5)


def test_hd95_is_diagonal_when_one_mask_is_empty():
    some, empty = np.zeros((240, 240, 155), bool), np.zeros((240, 240, 155), bool)
    some[100, 100, 100] = True
    assert hd95(empty, empty) == 0
    assert hd95(some, empty, (1, 1, 1)) == hd95(empty, some, (1, 1, 1)) == pytest.approx(373.13, abs=5e-3)
    assert hd95(some, empty, (1, 1, 2)) == pytest.approx(np.sqrt(2 * 240**2 + 310**2))


def test_surface_voxels_are_face_connected_and_include_image_edge():
    box = np.zeros((5, 5), bool)
    box[0:3, 0:3] = True
    assert surface_voxels(box).sum() == 8
    assert not surface_voxels(box)[1, 1]


def test_hd95_of_single_slice_equals_that_of_image():
    prediction, truth = blobs(1, (40, 40)), blobs(2, (40, 40))
    assert hd95(prediction[..., None], truth[..., None], (1, 2, 9)) == hd95(prediction, truth, (1, 2))


@pytest.mark.parametrize("shape", [(40, 50), (24, 30, 20)])
@pytest.mark.parametrize("seed", range(3))
def test_hd95_equals_distance_transform_of_whole_image(seed, shape):
    prediction, truth = blobs(seed, shape), blobs(seed + 100, shape)
    spacing = (1.0, 0.7, 3.0)[: len(shape)]
    assert hd95(prediction, truth, spacing) == pytest.approx(plain_hd95(prediction, truth, spacing), abs=1e-9)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.0, 0.7, 3.0)])
def test_hd95_equals_monai(spacing):
    metrics = pytest.importorskip("monai.metrics", reason="MONAI is a comparator and not installed")
    for seed in range(3):
        prediction, truth = blobs(seed, (24, 30, 20)), blobs(seed + 100, (24, 30, 20))
        expected = metrics.compute_hausdorff_distance(
            prediction[None, None], truth[None, None], include_background=True, percentile=95, spacing=spacing
        )
        assert hd95(prediction, truth, spacing) == pytest.approx(float(expected), rel=1e-6)

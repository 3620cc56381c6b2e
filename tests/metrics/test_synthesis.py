import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torchmetrics.functional.image import structural_similarity_index_measure

from ganseg_dist.errors import DataError
from ganseg_dist.metrics.synthesis import diversity, frechet_distance, kernel_distance, structural_similarity


def test_frechet_distance_matches_hand_computation():
    # On one dimension it is (m - m')^2 + (s - s')^2: here means 1 and 5, standard deviations 1 and 2.
    synthetic, real = np.array([[0.0], [1.0], [2.0]]), np.array([[3.0], [5.0], [7.0]])
    found = frechet_distance(synthetic, real)
    assert found.value == pytest.approx(4**2 + 1**2)
    assert (found.n_synthetic, found.n_real, found.dimensions) == (3, 3, 1)


def test_frechet_distance_of_shift_is_squared_shift():
    features = np.random.default_rng(0).normal(size=(50, 8))
    assert frechet_distance(features, features).value == pytest.approx(0, abs=1e-10)
    assert frechet_distance(features + 0.5, features).value == pytest.approx(8 * 0.25)


def test_frechet_distance_equals_its_definition():
    rng = np.random.default_rng(1)
    synthetic, real = rng.normal(size=(60, 5)) @ rng.normal(size=(5, 5)), rng.normal(1, 2, size=(40, 5))
    covariances = np.cov(synthetic.T), np.cov(real.T)
    expected = ((synthetic.mean(0) - real.mean(0)) ** 2).sum() + np.trace(
        covariances[0] + covariances[1] - 2 * sqrtm(covariances[0] @ covariances[1]).real
    )
    assert frechet_distance(synthetic, real).value == pytest.approx(expected)


def test_frechet_distance_of_few_images_is_that_of_subspace():
    rng = np.random.default_rng(2)
    synthetic, real = rng.normal(size=(6, 2)), rng.normal(1, 2, size=(5, 2))
    turned = np.linalg.qr(rng.normal(size=(30, 30)))[0][:2]
    assert frechet_distance(synthetic @ turned, real @ turned).value == pytest.approx(
        frechet_distance(synthetic, real).value
    )


def test_kernel_distance_matches_hand_computation():
    # Constant features: the kernel is (0 + 1)^3 = 1 within the zeros, (1 + 1)^3 = 8 within the ones, 1 between.
    found = kernel_distance(np.zeros((6, 3)), np.ones((4, 3)))
    assert found.mean == pytest.approx(1 + 8 - 2 * 1)
    assert (found.standard_error, found.n_synthetic, found.n_real, found.subset_size) == (0, 6, 4, 2)


def test_kernel_distance_is_unbiased_with_accurate_standard_error():
    rng = np.random.default_rng(3)
    same = [kernel_distance(rng.normal(size=(40, 4)), rng.normal(size=(40, 4)), seed=seed) for seed in range(20)]
    means = np.array([found.mean for found in same])
    assert abs(means.mean()) < 3 * means.std() / 20**0.5
    assert min(means) < 0
    apart = [kernel_distance(rng.normal(0.7, 1, (40, 4)), rng.normal(size=(40, 4)), seed=seed) for seed in range(20)]
    spread = np.std([found.mean for found in apart])
    # The error that each set claims alone is what twenty sets of images show.
    assert np.mean([found.standard_error for found in apart]) == pytest.approx(spread, rel=0.4)
    assert min(found.mean for found in apart) > max(means)


def test_kernel_distance_is_seeded():
    rng = np.random.default_rng(4)
    synthetic, real = rng.normal(size=(20, 4)), rng.normal(size=(25, 4))
    assert kernel_distance(synthetic, real, seed=1) == kernel_distance(synthetic, real, seed=1)
    assert kernel_distance(synthetic, real, seed=1) != kernel_distance(synthetic, real, seed=2)


def images(seed, count, channels=1):
    return np.random.default_rng(seed).uniform(-1, 1, (count, channels, 24, 24)).astype(np.float32)


def test_structural_similarity_is_one_for_equal_and_near_zero_for_noise():
    real = images(0, 5)
    found = structural_similarity(real, real)
    assert (found.mean, found.n) == (pytest.approx(1), 5)
    assert abs(structural_similarity(images(1, 5), real).mean) < 0.1


def test_structural_similarity_of_constant_images_matches_formula():
    # Without variance it is (2ab + c) / (a^2 + b^2 + c), c = (0.01 * 2)^2.
    dark, bright = np.full((1, 2, 16, 16), -0.5), np.full((1, 2, 16, 16), 0.25)
    expected = (2 * -0.5 * 0.25 + 4e-4) / (0.25 + 0.0625 + 4e-4)
    assert structural_similarity(dark, bright).mean == pytest.approx(expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_structural_similarity_equals_torchmetrics_inside_border(channels):
    real = 0.1 * images(2, 4, channels)  # an own range of 0.2
    generated = (real + 0.05 * images(3, 4, channels)).astype(np.float32)
    pair = [torch.from_numpy(of).double() for of in (generated, real)]
    _, full = structural_similarity_index_measure(*pair, data_range=2.0, return_full_image=True)
    assert structural_similarity(generated, real).mean == pytest.approx(full[..., 5:-5, 5:-5].mean().item(), abs=1e-9)
    own_range = float(structural_similarity_index_measure(*pair))
    assert abs(structural_similarity(generated, real).mean - own_range) > 0.05


def test_structural_similarity_excludes_padded_border():
    real, generated = images(2, 1), images(2, 1)
    generated[..., 5:-5, 5:-5] = images(3, 1)[..., 5:-5, 5:-5]  # alike at the border alone
    pair = [torch.from_numpy(of).double() for of in (generated, real)]
    padded = structural_similarity_index_measure(*pair, data_range=2.0).item()
    assert structural_similarity(generated, real).mean < padded - 0.1


def test_structural_similarity_counts_patients():
    real = images(0, 6)
    generated = np.concatenate([real[:3], images(1, 3)])
    found = structural_similarity(generated, real, ["a"] * 3 + ["b"] * 3)
    assert (found.n, found.high) == (2, pytest.approx(1))


def test_diversity_matches_hand_computation():
    # Distances 3, 4 and 5 against 6, 8 and 10.
    triangle = np.array([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
    found = diversity(triangle, 2 * triangle)
    assert (found.synthetic, found.real, found.ratio) == pytest.approx((4, 8, 0.5))
    assert (found.n_synthetic, found.n_real) == (3, 3)


def test_diversity_of_collapsed_generator_is_zero():
    found = diversity(np.repeat(images(0, 1), 8, axis=0), images(1, 9))
    assert (found.synthetic, found.ratio) == (0, 0)
    assert (found.n_synthetic, found.n_real) == (8, 9)
    assert diversity(images(1, 9), np.repeat(images(0, 1), 8, axis=0)).ratio is None


@pytest.mark.parametrize(("measure", "fewest"), [(frechet_distance, 2), (kernel_distance, 4), (diversity, 2)])
def test_synthesis_metrics_of_few_images_are_finite_or_raise(measure, fewest):
    rng = np.random.default_rng(5)
    few, many = rng.normal(size=(fewest, 16)), rng.normal(size=(30, 16))
    found = measure(few, many)
    assert found.n_synthetic == fewest
    values = [getattr(found, name) for name in found.__slots__]
    assert np.isfinite(np.array(values, float)).all()
    with pytest.raises(DataError, match=f"{fewest - 1} synthetic image.s.; give at least {fewest}"):
        measure(few[1:], many)
    with pytest.raises(DataError, match=f"{fewest - 1} real image.s.; give at least {fewest}"):
        measure(many, few[1:])
    with pytest.raises(DataError, match="synthetic features are not all finite"):
        measure(np.full((30, 16), np.nan), many)
    with pytest.raises(DataError, match="beside real ones"):
        measure(many, many[:, :3])


def test_structural_similarity_rejects_invalid_inputs():
    real = images(0, 2)
    with pytest.raises(DataError, match="give pairs"):
        structural_similarity(real[:1], real)
    with pytest.raises(DataError, match="needs 11 on each side"):
        structural_similarity(real[..., :8], real[..., :8])
    with pytest.raises(DataError, match="synthetic images have intensities outside"):
        structural_similarity(2 * real, real)
    with pytest.raises(DataError, match="real images have intensities outside"):
        structural_similarity(real, np.full_like(real, np.nan))

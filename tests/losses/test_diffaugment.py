import numpy as np
import pytest
import torch

from ganseg_dist.losses.diffaugment import augment, sample_view

FAR = 3.0
"""A cutout's centre so far off that nothing is cut."""


def view(brightness=0.0, contrast=0.0, down=0.0, right=0.0, row=FAR, column=FAR):
    return torch.tensor([[brightness, contrast, down, right, row, column]])


@pytest.fixture
def image():
    return torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (1, 2, 16, 16)).astype(np.float32))


def test_augment_with_neutral_view_is_identity(image):
    torch.testing.assert_close(augment(image, view()), image, atol=1e-5, rtol=0)


def test_augment_adds_brightness_and_scales_contrast_about_mean(image):
    torch.testing.assert_close(augment(image, view(brightness=-0.6)), image - 0.3, atol=1e-5, rtol=0)
    flatter = augment(image, view(contrast=-1))
    torch.testing.assert_close(flatter - flatter.mean(), (image - image.mean()) / 2, atol=1e-5, rtol=0)
    assert flatter.mean() == pytest.approx(float(image.mean()), abs=1e-5)


def test_augment_translates_by_whole_pixels_and_pads_with_background(image):
    moved = augment(image, view(down=1, right=-0.4))  # 0.125 * 16 = 2 down; 0.8, that is 1, to the left
    torch.testing.assert_close(moved[..., 2:, :15], image[..., :14, 1:], atol=1e-5, rtol=0)
    torch.testing.assert_close(moved[..., :2, :], torch.full((1, 2, 2, 16), -1.0), atol=1e-5, rtol=0)


def test_augment_cutout_zeroes_square_of_half_the_side(image):
    blanked = augment(image, view(row=0, column=0))
    assert (blanked[..., 4:12, 4:12] == 0).all()
    outside = torch.ones(16, 16, dtype=torch.bool)
    outside[4:12, 4:12] = False
    torch.testing.assert_close(blanked[..., outside], image[..., outside], atol=1e-5, rtol=0)


def test_augment_applies_view_per_image_and_passes_gradient(image):
    pair = torch.cat([image, image]).requires_grad_()
    looked = augment(pair, torch.cat([view(brightness=1), view()]))
    torch.testing.assert_close(looked[0] - 0.5, looked[1], atol=1e-5, rtol=0)
    looked.sum().backward()
    torch.testing.assert_close(pair.grad, torch.ones_like(pair), atol=1e-4, rtol=0)


def test_sample_view_is_seeded_and_fills_its_range():
    views = np.stack([sample_view(np.random.default_rng(seed)) for seed in range(200)])
    assert views.shape == (200, 6)
    assert views.dtype == np.float32
    assert (np.abs(views) <= 1).all()
    assert (np.abs(views).max(axis=0) > 0.9).all()
    np.testing.assert_array_equal(sample_view(np.random.default_rng(3)), views[3])

import pytest
import torch

from ganseg_dist.losses.adversarial import diversity_loss


def test_diversity_loss_is_image_difference_over_noise_difference():
    """Example one: images differ by 0.5, noises by 2; example two: images are equal."""
    one = torch.zeros(2, 1, 4, 4)
    other = one.clone()
    other[0] += 0.5
    z, other_z = torch.zeros(2, 3), torch.full((2, 3), 2.0)
    assert diversity_loss(one, other, z, other_z).item() == pytest.approx(-(0.25 + 0) / 2, rel=1e-5)


def test_diversity_loss_is_finite_for_equal_noise():
    image = torch.zeros(1, 1, 2, 2)
    assert diversity_loss(image, image, torch.zeros(1, 3), torch.zeros(1, 3)).item() == 0

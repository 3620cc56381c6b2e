import math

import pytest
import torch

from ganseg_dist.losses.adversarial import (
    adversarial_feedback_loss_paper,
    discriminator_loss,
    edge_map,
    edge_map_paper,
    generator_loss,
    hole_l1_loss,
    laplacian,
)

LOGIT = math.log(3)
"""sigmoid(log 3) = 3/4, sigmoid(-log 3) = 1/4."""


def patches(*values):
    return torch.tensor(values, dtype=torch.float32).view(1, 1, 1, -1)


def square(side=9, first=3, last=6):
    mask = torch.zeros(1, 1, side, side)
    mask[..., first:last, first:last] = 1
    return mask


def test_discriminator_loss_matches_hand_computation():
    real, fake = patches(LOGIT, 0.0), patches(LOGIT, -LOGIT)
    on_real = -(math.log(3 / 4) + math.log(1 / 2)) / 2
    every = -(math.log(1 / 4) + math.log(3 / 4)) / 2
    assert discriminator_loss(real, fake, patches(1, 1)).item() == pytest.approx(on_real + every, rel=1e-5)
    # Only the second patch holds generated pixels: it alone is judged, in both.
    second = -math.log(1 / 2) - math.log(3 / 4)
    assert discriminator_loss(real, fake, patches(0, 1)).item() == pytest.approx(second, rel=1e-5)


def test_generator_loss_matches_hand_computation():
    fake = patches(LOGIT, -LOGIT)
    assert generator_loss(fake, patches(0, 1)).item() == pytest.approx(-math.log(1 / 4), rel=1e-5)
    assert generator_loss(fake, patches(1, 1)).item() == pytest.approx(-math.log(3 / 4 * 1 / 4) / 2, rel=1e-5)


def test_adversarial_losses_are_finite_for_extreme_logits():
    certain, both = patches(200.0, -200.0), patches(1, 1)
    for loss in (
        discriminator_loss(certain, certain, both),
        generator_loss(certain, both),
        adversarial_feedback_loss_paper(certain),
    ):
        assert torch.isfinite(loss)
        assert loss > 99


def test_generator_loss_of_example_without_holes_is_zero():
    fake = torch.cat([patches(-LOGIT, -LOGIT), patches(-LOGIT, -LOGIT)])
    touched = torch.cat([patches(1, 1), patches(0, 0)])
    assert generator_loss(fake, touched).item() == pytest.approx(-math.log(1 / 4) / 2, rel=1e-5)
    assert generator_loss(fake[1:], touched[1:]).item() == 0


def test_hole_l1_loss_averages_over_hole_pixels_and_channels():
    image, reconstruction = torch.zeros(1, 2, 1, 4), torch.zeros(1, 2, 1, 4)
    reconstruction[0, 0, 0] = torch.tensor([0.5, 0.25, 9.0, 9.0])
    reconstruction[0, 1, 0] = torch.tensor([-0.5, 0.75, 9.0, 9.0])
    holes = torch.tensor([1.0, 1.0, 0.0, 0.0]).view(1, 1, 1, 4)
    assert hole_l1_loss(reconstruction, image, holes).item() == pytest.approx((0.5 + 0.25 + 0.5 + 0.75) / 4, rel=1e-5)
    assert hole_l1_loss(reconstruction, image, torch.zeros_like(holes)).item() == 0


def test_laplacian_of_point_and_constant():
    point = torch.zeros(1, 1, 3, 3)
    point[..., 1, 1] = 1
    assert laplacian(point)[0, 0].tolist() == [[0, 1, 0], [1, -4, 1], [0, 1, 0]]
    assert (laplacian(torch.full((1, 1, 4, 5), 0.7)).abs() < 1e-6).all(), "the border is replicated"


def test_edge_map_of_square_matches_hand_computation():
    """3 x 3 dilated by 5 is 7 x 7, from 1 to 8; its Laplacian is 1 along the sides, in and out, 2 in corners."""
    edges = edge_map(square(), (9, 9))[0, 0]
    assert edges[1, 1:8].tolist() == [2, 1, 1, 1, 1, 1, 2]
    assert edges[0].tolist() == [0, 1, 1, 1, 1, 1, 1, 1, 0]
    assert (edges[2:7, 2:7] == 0).all()
    assert torch.equal(edges, edges.T)
    # Pooled to 3 x 3 every patch but the middle one holds some of the outline.
    assert edge_map(square(), (3, 3))[0, 0].tolist() == [[2, 1, 2], [1, 0, 1], [2, 1, 2]]


def test_edge_map_is_zero_for_empty_or_constant_mask():
    assert (edge_map(torch.zeros(1, 1, 9, 9), (3, 3)) == 0).all()
    assert (edge_map(torch.full((1, 1, 9, 9), 0.5), (3, 3)) == 0).all()


def test_edge_map_paper_does_not_dilate():
    """Laplacian of a 10 x 10 mask whose upper left 5 x 5 are set, then the largest of each 5 x 5 block."""
    mask = torch.zeros(1, 1, 10, 10)
    mask[..., :5, :5] = 1
    assert edge_map_paper(mask, (2, 2))[0, 0].tolist() == [[2, 1], [1, 0]]
    # Dilated first, the outline reaches the fourth block.
    assert edge_map(mask, (2, 2))[0, 0].tolist() == [[0, 1], [1, 2]]


def test_edge_maps_are_detached():
    mask = square().requires_grad_()
    assert not edge_map(mask, (3, 3)).requires_grad
    assert not edge_map_paper(mask, (3, 3)).requires_grad


def test_adversarial_feedback_loss_matches_hand_computation():
    logits, edges = patches(LOGIT, -LOGIT, 5.0), patches(2, 1, 0)
    expected = -(2 * math.log(3 / 4) + math.log(1 / 4)) / 3
    assert generator_loss(logits, edges).item() == pytest.approx(expected, rel=1e-5)
    assert generator_loss(logits, patches(0, 0, 0)).item() == 0


def test_adversarial_feedback_loss_paper_reverses_preference():
    real, fake, edges = patches(LOGIT), patches(-LOGIT), patches(1)
    assert generator_loss(real, edges) < generator_loss(fake, edges)
    assert adversarial_feedback_loss_paper(real) > adversarial_feedback_loss_paper(fake)
    assert adversarial_feedback_loss_paper(real).item() == pytest.approx(-math.log(1 / 4), rel=1e-5)

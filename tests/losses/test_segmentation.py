import math

import pytest
import torch

from ganseg_dist.losses.segmentation import (
    binary_cross_entropy_loss,
    categorical_cross_entropy_loss,
    dice_loss,
    size_consistency_loss,
    sparsity_penalty,
)


def pixels(*values):
    """One example and channel of 2 x 2 pixels."""
    return torch.tensor(values, dtype=torch.float32).view(1, 1, 2, 2)


def test_binary_cross_entropy_loss_matches_hand_computation():
    # Logits 0 and log 3 are probabilities 1/2 and 3/4.
    logits, truth = pixels(0, math.log(3), 0, math.log(3)), pixels(1, 1, 0, 0)
    total = -(math.log(1 / 2) + math.log(3 / 4) + math.log(1 / 2) + math.log(1 / 4))
    assert binary_cross_entropy_loss(logits, truth).item() == pytest.approx(total / 4)
    assert binary_cross_entropy_loss(logits, truth, reduce="sum").item() == pytest.approx(total)


def test_cross_entropy_sum_is_per_example_and_mean_over_examples():
    logits, truth = torch.zeros(3, 2, 4, 4), torch.zeros(3, 2, 4, 4)
    assert binary_cross_entropy_loss(logits, truth, reduce="sum").item() == pytest.approx(2 * 16 * math.log(2))
    classes = torch.zeros(3, 4, 4, dtype=torch.int64)
    assert categorical_cross_entropy_loss(logits, classes, reduce="sum").item() == pytest.approx(16 * math.log(2))


def test_categorical_cross_entropy_loss_matches_hand_computation():
    # Three classes with probabilities 1/5, 1/5, 3/5 at every pixel.
    logits = torch.tensor([0.0, 0.0, math.log(3)]).view(1, 3, 1, 1).expand(1, 3, 1, 2)
    classes = torch.tensor([[[0, 2]]])
    expected = -(math.log(1 / 5) + math.log(3 / 5)) / 2
    assert categorical_cross_entropy_loss(logits, classes).item() == pytest.approx(expected)


def test_dice_loss_matches_hand_computation():
    probability, truth = pixels(1, 0.5, 0, 0.5), pixels(1, 1, 0, 0)
    # Overlap 1.5, sizes 2 and 2, one pixel of smoothing on both sides.
    assert dice_loss(probability, truth).item() == pytest.approx(1 - (2 * 1.5 + 1) / (4 + 1))


def test_dice_loss_of_empty_masks():
    empty = pixels(0, 0, 0, 0)
    assert dice_loss(empty, empty).item() == 0
    assert dice_loss(pixels(1, 1, 1, 0), empty).item() == pytest.approx(1 - 1 / 4)
    assert dice_loss(empty, pixels(1, 1, 1, 0)).item() == pytest.approx(1 - 1 / 4)


def test_dice_loss_gradient_shrinks_prediction_on_empty_truth():
    probability = pixels(0.5, 0.5, 0.5, 0.5).requires_grad_()
    dice_loss(probability, pixels(0, 0, 0, 0)).backward()
    assert (probability.grad > 0).all()


def test_dice_loss_averages_over_examples_and_regions():
    truth = torch.zeros(2, 2, 2, 2)
    truth[0] = 1
    probability = truth.clone()
    probability[1, 1] = 1  # one of four example-regions is wrong: 1 - 1/5
    assert dice_loss(probability, truth).item() == pytest.approx((0 + 0 + 0 + 4 / 5) / 4)


def test_sparsity_penalty_matches_hand_computation():
    mask = torch.cat([pixels(1, 0.5, 0, 0), pixels(0, 0, 0, 0)])
    assert sparsity_penalty(mask).item() == pytest.approx((1.5 / 4 + 0) / 2)
    assert sparsity_penalty(mask, reduce="sum").item() == pytest.approx((1.5 + 0) / 2)


def test_size_consistency_loss_matches_hand_computation():
    truth, mask = pixels(1, 1, 0, 0), pixels(1, 0.5, 1, 1)
    assert size_consistency_loss(mask, truth).item() == pytest.approx(abs(3.5 - 2) / 2)
    assert size_consistency_loss(mask, truth, floor=0).item() == pytest.approx(abs(3.5 - 2) / 2)
    assert size_consistency_loss(truth, truth).item() == 0


def test_size_consistency_loss_of_empty_truth_is_relative_to_floor():
    truth, mask = torch.zeros(1, 1, 20, 20), torch.zeros(1, 1, 20, 20)
    mask[..., :2, :3] = 1
    assert size_consistency_loss(mask, truth).item() == pytest.approx(6 / 4)
    assert size_consistency_loss(truth, truth).item() == 0


def test_size_consistency_loss_uses_floor_for_small_lesion():
    truth = torch.zeros(1, 1, 20, 20)
    truth[..., 0, 0] = 1
    assert size_consistency_loss(torch.zeros_like(truth), truth).item() == pytest.approx(1 / 4)
    assert size_consistency_loss(torch.zeros_like(truth), truth, floor=0).item() == pytest.approx(1)


def test_size_consistency_loss_without_floor_skips_empty_truth():
    truth = torch.cat([pixels(1, 1, 0, 0), pixels(0, 0, 0, 0)])
    mask = torch.ones(2, 1, 2, 2, requires_grad=True)
    loss = size_consistency_loss(mask, truth, floor=0)
    loss.backward()
    assert loss.item() == pytest.approx((2 / 2 + 0) / 2)
    assert torch.isfinite(mask.grad).all()
    assert (mask.grad[1] == 0).all()
    assert size_consistency_loss(mask[1:], truth[1:], floor=0).item() == 0


@pytest.mark.parametrize("floor", [0.0, 0.01])
def test_losses_of_two_halves_average_to_loss_of_batch(floor):
    generator = torch.Generator().manual_seed(0)
    probability = torch.rand(4, 1, 8, 8, generator=generator)
    truth = (torch.rand(4, 1, 8, 8, generator=generator) > 0.7).float()
    truth[0] = 0
    for loss in (dice_loss, lambda p, t: size_consistency_loss(p, t, floor=floor), binary_cross_entropy_loss):
        halves = (loss(probability[:2], truth[:2]) + loss(probability[2:], truth[2:])) / 2
        assert halves.item() == pytest.approx(loss(probability, truth).item(), rel=1e-6)

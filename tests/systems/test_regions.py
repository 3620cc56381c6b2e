import math

import pytest
import torch

from ganseg_dist.systems.regions import head_channels, region_probability, segmentation_loss


def test_region_probability_sigmoid_is_per_region():
    logits = torch.tensor([0.0, math.log(3)]).view(1, 2, 1, 1)
    assert region_probability(logits, "sigmoid").flatten().tolist() == pytest.approx([0.5, 0.75])
    assert head_channels("sigmoid", 3) == 3


def test_region_probability_softmax_sums_deeper_classes():
    """Background 1/10, oedema 2/10, core 3/10, enhancing 4/10: whole tumour 9/10, core 7/10, enhancing 4/10."""
    logits = torch.log(torch.tensor([1.0, 2.0, 3.0, 4.0])).view(1, 4, 1, 1)
    assert region_probability(logits, "softmax").flatten().tolist() == pytest.approx([0.9, 0.7, 0.4])
    assert head_channels("softmax", 3) == 4


def test_segmentation_loss_softmax_reads_nested_regions_as_classes():
    # Two pixels: whole tumour alone is class 1, all three regions class 3.
    truth = torch.tensor([[1.0, 1.0], [0.0, 1.0], [0.0, 1.0]]).view(1, 3, 1, 2)
    right = torch.full((1, 4, 1, 2), -50.0)
    right[0, 1, 0, 0] = right[0, 3, 0, 1] = 50.0
    assert segmentation_loss(right, truth, "softmax").item() == pytest.approx(0, abs=1e-5)
    assert segmentation_loss(right.flip(3), truth, "softmax").item() > 50


def test_segmentation_loss_is_cross_entropy_plus_dice():
    logits, truth = torch.zeros(1, 1, 2, 2), torch.tensor([1.0, 1.0, 0.0, 0.0]).view(1, 1, 2, 2)
    dice = 1 - (2 * 1 + 1) / (2 + 2 + 1)
    assert segmentation_loss(logits, truth, "sigmoid").item() == pytest.approx(math.log(2) + dice)
    assert segmentation_loss(logits, truth, "sigmoid", reduce="sum").item() == pytest.approx(4 * math.log(2) + dice)

"""Region heads: independent sigmoids, or the softmax over nested tissue classes of the GANet-Seg text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from ganseg_dist.data.labels import REGION_LABELS
from ganseg_dist.data.nesting import rows_inside
from ganseg_dist.losses.segmentation import (
    binary_cross_entropy_loss,
    categorical_cross_entropy_loss,
    dice_loss,
)
from ganseg_dist.systems.base import Ratio

Head = Literal["sigmoid", "softmax"]


def head_channels(head: Head, regions: int) -> int:
    """Logits a pixel: one a region, or one a class with the background."""
    return regions if head == "sigmoid" else regions + 1


def region_probability(logits: Tensor, head: Head) -> Tensor:
    """(B, K, H, W) logits to (B, R, H, W) probabilities of the regions.

    Under softmax the regions are nested, whole tumour outermost: class r is region r without region r + 1,
    so a region's probability is the sum over its class and all deeper ones.
    """
    if head == "sigmoid":
        return torch.sigmoid(logits.float())
    deeper = torch.softmax(logits.float(), dim=1)[:, 1:]
    return deeper.flip(1).cumsum(1).flip(1).clamp(0, 1)


def likely_regions(probability: Tensor, regions: Sequence[str]) -> Tensor:
    """(B, R, H, W) masks of regions that are as likely as not, of probabilities (B, R, H, W).

    Nested as `data.nesting.regions_at` does it: an inner region's pixels belong to the outer ones.
    """
    likely = probability >= 0.5
    rows = rows_inside(regions, REGION_LABELS)
    return torch.stack([likely[:, list(inside)].any(dim=1) for inside in rows], dim=1)


def dice_names(regions: Sequence[str]) -> tuple[str, ...]:
    """Names of the scores that `dice_ratios` gives."""
    return tuple(f"dice_{region}" for region in regions)


def dice_ratios(probability: Tensor, truth: Tensor, regions: Sequence[str]) -> dict[str, Ratio]:
    """Each region's Dice at 0.5 as `dice_REGION`, over the cases that have it; both (B, R, H, W)."""
    predicted, true = likely_regions(probability, regions), truth > 0.5
    overlap = (predicted & true).flatten(2).sum(2).double()
    true_sizes = true.flatten(2).sum(2).double()
    sizes = predicted.flatten(2).sum(2) + true_sizes
    return {
        name: Ratio(2 * overlap[:, index], sizes[:, index], true_sizes[:, index])
        for index, name in enumerate(dice_names(regions))
    }


def segmentation_loss(logits: Tensor, truth: Tensor, head: Head, *, reduce: str = "mean") -> Tensor:
    """Cross-entropy plus Dice (GANet-Seg Eqs. 3, 4 and 8); truth (B, R, H, W) in {0, 1}."""
    if head == "sigmoid":
        cross_entropy = binary_cross_entropy_loss(logits, truth, reduce=reduce)
    else:
        classes = truth.cumprod(dim=1).sum(dim=1).long()  # nested: how many regions deep a pixel lies
        cross_entropy = categorical_cross_entropy_loss(logits, classes, reduce=reduce)
    return cross_entropy + dice_loss(region_probability(logits, head), truth)

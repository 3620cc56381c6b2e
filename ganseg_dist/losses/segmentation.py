"""Cross-entropy and Dice between predicted and true regions. Each loss is a mean over examples."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

DICE_SMOOTHING = 1.0
"""Pixels added to numerator and denominator, so that the loss of an empty slice can be lowered."""


def binary_cross_entropy_loss(logits: Tensor, truth: Tensor, *, reduce: str = "mean") -> Tensor:
    """GANet-Seg Eq. 3 on each region's sigmoid; logits and truth (B, R, H, W), truth in {0, 1}.

    A mean over pixels, or the paper's "sum", which makes the loss grow with the image.
    """
    per_pixel = F.binary_cross_entropy_with_logits(logits.float(), truth.float(), reduction="none")
    return per_pixel.mean() if reduce == "mean" else per_pixel.sum(dim=(1, 2, 3)).mean()


def categorical_cross_entropy_loss(logits: Tensor, classes: Tensor, *, reduce: str = "mean") -> Tensor:
    """Softmax cross-entropy; logits (B, K, H, W), classes (B, H, W) int64."""
    per_pixel = F.cross_entropy(logits.float(), classes, reduction="none")
    return per_pixel.mean() if reduce == "mean" else per_pixel.sum(dim=(1, 2)).mean()


def dice_loss(probability: Tensor, truth: Tensor) -> Tensor:
    """GANet-Seg Eq. 4: mean over examples and regions of 1 - 2 |P * T| / (|P| + |T|); both (B, R, H, W) in [0, 1]."""
    probability, truth = probability.float(), truth.float()
    overlap = (probability * truth).sum(dim=(2, 3))
    sizes = probability.sum(dim=(2, 3)) + truth.sum(dim=(2, 3))
    return (1 - (2 * overlap + DICE_SMOOTHING) / (sizes + DICE_SMOOTHING)).mean()


def sparsity_penalty(mask: Tensor, *, reduce: str = "mean") -> Tensor:
    """GANet-Seg Eq. 5, |M|_1 as a mean over pixels ("sum": the paper's); mask (B, 1, H, W) in [0, 1]."""
    per_example = mask.float().flatten(1)
    return (per_example.mean(1) if reduce == "mean" else per_example.sum(1)).mean()


def size_consistency_loss(mask: Tensor, truth: Tensor, *, floor: float = 0.01) -> Tensor:
    """GANet-Seg Eq. 6: |sum M - S| / max(S, floor * H * W) for each example, then the mean.

    The floor is our addition: the printed form divides by zero on an empty slice. `floor=0` is the printed form
    on slices with a lesion; those without count as 0.
    """
    predicted, size = mask.float().flatten(1).sum(1), truth.float().flatten(1).sum(1)
    if floor > 0:
        pixels = truth.shape[-2] * truth.shape[-1]
        return ((predicted - size).abs() / size.clamp(min=floor * pixels)).mean()
    relative = (predicted - size).abs() / size.clamp(min=1)
    return torch.where(size > 0, relative, torch.zeros_like(relative)).mean()

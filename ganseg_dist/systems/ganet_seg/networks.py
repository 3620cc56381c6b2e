"""The generator that fills holes: a U-Net that refines a smooth guess, or the text's without one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganseg_dist.models.unet import UNet

EPSILON = 1e-6
TANH_RANGE = 0.999
"""Largest magnitude of the guess, so that its inverse tanh stays finite."""


class InpaintingGenerator(nn.Module):
    """G(x * (1 - M), M) of GANet-Seg: U-Net, ReLU, tanh (Sections 4.1.1 and 5.4.2).

    The U-Net sees the occluded image with a smooth guess in its holes and the mask, and its output is added to
    the guess before the tanh. Instance normalisation discards absolute intensities; the guess keeps them.
    Without the guess, this is the generator of the paper's text.
    """

    def __init__(self, channels: int, widths: Sequence[int], *, smooth_guess: bool = True) -> None:
        super().__init__()
        self.unet = UNet(channels + 1, channels, widths)
        self.smooth_guess = smooth_guess

    def forward(self, kept: Tensor, mask: Tensor) -> Tensor:
        """Occluded image (B, C, H, W) and mask (B, 1, H, W) in [0, 1] to an image (B, C, H, W) in (-1, 1)."""
        if not self.smooth_guess:
            return torch.tanh(self.unet(torch.cat([kept, mask], dim=1)).float())
        guess = smooth_fill(kept, 1 - mask)
        refinement = self.unet(torch.cat([guess, mask], dim=1)).float()
        return torch.tanh(torch.atanh(guess.clamp(-TANH_RANGE, TANH_RANGE)) + refinement)


def smooth_fill(kept: Tensor, known: Tensor) -> Tensor:
    """Fill what is not known by averages of what is, from coarse to fine.

    `kept` is (B, C, H, W), the image times `known`, which is (B, 1, H, W) in [0, 1]. Each pixel is
    `kept + (1 - known) * guess`, the guess being the filled image of half the resolution, whose pixels are means over
    known pixels alone.
    """
    if min(kept.shape[-2:]) <= 2:
        return kept + (1 - known) * kept.sum((2, 3), keepdim=True) / (known.sum((2, 3), keepdim=True) + EPSILON)
    weight = F.avg_pool2d(known, 2)
    share = weight / (weight + EPSILON)  # 1 as soon as one of the four pixels is known
    coarse = smooth_fill(F.avg_pool2d(kept, 2) / (weight + EPSILON) * share, share)
    guess = F.interpolate(coarse, size=kept.shape[-2:], mode="bilinear", align_corners=False)
    return kept + (1 - known) * guess

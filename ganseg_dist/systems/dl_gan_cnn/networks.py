"""The generator of DL-GAN-CNN: feature maps from an image and its initial mask."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ganseg_dist.models.layers import xavier_initialise
from ganseg_dist.models.unet import UNet


class FeatureGenerator(nn.Module):
    """G of DL-GAN-CNN, Section 4.4.1: encoder and decoder of transposed convolutions with skips, ReLU, tanh.

    The last skip leads from the input itself to the output layer: normalisation inside the U-Net discards absolute
    intensities, which a feature map must keep.
    """

    def __init__(self, channels_in: int, channels_out: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.unet = UNet(channels_in, widths[0], widths)
        self.head = nn.Conv2d(widths[0] + channels_in, channels_out, 1)
        xavier_initialise(self.head)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels_in, H, W) in [-1, 1] to a feature map (B, channels_out, H, W) in (-1, 1)."""
        features = torch.cat([torch.relu(self.unet(x)), x], dim=1)
        return torch.tanh(self.head(features).float())

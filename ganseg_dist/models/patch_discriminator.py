"""PatchGAN: one realism logit for each patch of an image."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ganseg_dist.models.layers import instance_norm, strided_layers, xavier_initialise


class PatchDiscriminator(nn.Sequential):
    """Strided 4x4 convolutions with LeakyReLU 0.2, then a logit per patch (GANet-Seg, Section 4.1.1).

    (B, channels_in, H, W) to (B, 1, H / 2**n, W / 2**n) for n = len(widths); positive is real. The paper ends
    in a sigmoid; losses here take logits, because a sigmoid under mixed precision overflows.
    """

    def __init__(self, channels_in: int, widths: Sequence[int]) -> None:
        layers = strided_layers(channels_in, widths, instance_norm)
        super().__init__(*layers, nn.Conv2d(widths[-1], 1, 3, padding=1))
        xavier_initialise(self)

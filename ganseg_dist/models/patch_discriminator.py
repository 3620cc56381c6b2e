"""PatchGAN: one realism logit for each patch of an image."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ganseg_dist.models.initialise import xavier_initialise
from ganseg_dist.models.unet import instance_norm


class PatchDiscriminator(nn.Sequential):
    """Strided 4x4 convolutions with LeakyReLU 0.2, then a logit per patch (GANet-Seg, Section 4.1.1).

    (B, channels_in, H, W) to (B, 1, H / 2**n, W / 2**n) for n = len(widths); positive is real. The paper ends
    in a sigmoid; losses here take logits, because a sigmoid under mixed precision overflows.
    """

    def __init__(self, channels_in: int, widths: Sequence[int]) -> None:
        layers: list[nn.Module] = []
        for index, (below, here) in enumerate(zip([channels_in, *widths[:-1]], widths, strict=True)):
            first = index == 0
            layers.append(nn.Conv2d(below, here, 4, stride=2, padding=1, bias=first))
            if not first:  # normalising the first layer would hide the image's own intensities
                layers.append(instance_norm(here))
            layers.append(nn.LeakyReLU(0.2, inplace=True))
        layers.append(nn.Conv2d(widths[-1], 1, 3, padding=1))
        super().__init__(*layers)
        xavier_initialise(self)

"""The 2-D U-Net."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ganseg_dist.models.layers import conv_block, instance_norm, xavier_initialise


class UNet(nn.Module):
    """U-Net of GANet-Seg, Section 4.1.2: 2x2 max-pool down, transposed convolution up, skips, 1x1 head.

    `widths` are the channels at each resolution, finest first; the side is halved len(widths) - 1 times. A smooth one
    upsamples by repeating pixels and a 3x3 convolution instead of a transposed one, which causes checkerboard artefacts
    in generated images.
    """

    def __init__(self, channels_in: int, channels_out: int, widths: Sequence[int], *, smooth: bool = False) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(
            conv_block(below, here, instance_norm)
            for below, here in zip([channels_in, *widths[:-1]], widths, strict=True)
        )
        coarse_to_fine = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        enlarge = _repeated if smooth else _transposed
        self.upsample = nn.ModuleList(enlarge(deep, here) for deep, here in coarse_to_fine)
        self.decoder = nn.ModuleList(conv_block(2 * here, here, instance_norm) for _, here in coarse_to_fine)
        self.head = nn.Conv2d(widths[0], channels_out, 1)
        self.downsampling = 2 ** (len(widths) - 1)
        xavier_initialise(self)

    def forward(self, x: Tensor, kept: Tensor | None = None) -> Tensor:
        """(B, channels_in, H, W), sides divisible by `downsampling`, to (B, channels_out, H, W).

        `kept`, (B, sum(widths[1:])), is a dropout factor for each feature of the decoder, coarsest first: 0 drops it.
        The caller samples it, so that dropout depends on seed, epoch and example alone.
        """
        skips: list[Tensor] = []
        for block in self.encoder:
            x = block(nn.functional.max_pool2d(x, 2) if skips else x)
            skips.append(x)
        skips.pop()
        for upsample, block in zip(self.upsample, self.decoder, strict=True):
            if kept is not None:
                factors, kept = kept[:, : x.shape[1]], kept[:, x.shape[1] :]
                x = x * factors[..., None, None]
            x = block(torch.cat([upsample(x), skips.pop()], dim=1))
        logits: Tensor = self.head(x)
        return logits


def _transposed(channels_in: int, channels_out: int) -> nn.Module:
    return nn.ConvTranspose2d(channels_in, channels_out, 2, stride=2)


def _repeated(channels_in: int, channels_out: int) -> nn.Module:
    return nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(channels_in, channels_out, 3, padding=1))

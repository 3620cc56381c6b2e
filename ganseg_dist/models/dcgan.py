"""DCGAN: images from noise alone, and a realism logit for a whole image (Radford et al. 2016).

There are two departures. Normalisation is GroupNorm instead of batch norm, whose statistics would depend on the
number of workers and for which the gradient penalty of WGAN-GP is not defined (Gulrajani et al. 2017, Section 4).
The generator upsamples by nearest neighbours before a convolution: a transposed convolution's kernels overlap
unevenly, which causes checkerboard artefacts (Odena et al. 2016).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganseg_dist.models.layers import group_norm, small_initialise, strided_layers


class DCGANGenerator(nn.Module):
    """G(z): projected onto a coarse grid, then upsampled level by level.

    `widths` are the levels' channels, finest first; the side is a multiple of 2 ** (len(widths) - 1). z includes a
    condition's part.
    """

    def __init__(self, latent_size: int, channels: int, size: int, widths: Sequence[int]) -> None:
        super().__init__()
        coarse_to_fine = widths[::-1]
        grid = size // 2 ** (len(widths) - 1)
        self.project = nn.Linear(latent_size, coarse_to_fine[0] * grid**2)
        self.coarse = nn.Sequential(
            nn.Unflatten(1, (coarse_to_fine[0], grid, grid)), group_norm(coarse_to_fine[0]), nn.ReLU(inplace=True)
        )
        self.levels = nn.ModuleList(
            nn.Sequential(nn.Conv2d(above, here, 3, padding=1, bias=False), group_norm(here), nn.ReLU(inplace=True))
            for above, here in pairwise(coarse_to_fine)
        )
        self.head = nn.Conv2d(widths[0], channels, 3, padding=1)
        small_initialise(self)

    def forward(self, z: Tensor) -> Tensor:
        """(B, latent_size) to images (B, C, size, size) in (-1, 1)."""
        features = self.coarse(self.project(z))
        for level in self.levels:
            features = level(F.interpolate(features, scale_factor=2, mode="nearest"))
        return torch.tanh(self.head(features).float())


class DCGANDiscriminator(nn.Sequential):
    """Strided 4x4 convolutions with LeakyReLU 0.2, then one convolution over the whole remaining map.

    (B, channels_in, size, size) to logits (B, outputs); positive is real. Without a sigmoid, so that it serves as
    WGAN-GP's critic too. One output, or one per class, as in a projection discriminator of image and class, with
    weights per class over the last features (Miyato and Koyama 2018, Eq. 3).
    """

    def __init__(self, channels_in: int, size: int, widths: Sequence[int], outputs: int = 1) -> None:
        layers = strided_layers(channels_in, widths, group_norm)
        # Without a bias: a critic's offset cancels in its loss, and Adam would drift along rounding errors.
        layers += [nn.Conv2d(widths[-1], outputs, size // 2 ** len(widths), bias=False), nn.Flatten()]
        super().__init__(*layers)
        small_initialise(self)

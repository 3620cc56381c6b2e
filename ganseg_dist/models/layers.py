"""Layers that several networks share, and their initial weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import nn

GROUP = 8
"""Channels per normalisation group."""
SMALL = 0.02
"""Standard deviation of a GAN's initial weights (Radford et al. 2016, Section 4; Isola et al. 2017, Appendix 6.2)."""

Norm = Callable[[int], nn.Module]


def instance_norm(channels: int) -> nn.Module:
    """InstanceNorm2d with affine weights, computed as GroupNorm of one channel per group: the same result, faster."""
    return nn.GroupNorm(channels, channels)


def group_norm(channels: int) -> nn.Module:
    """GroupNorm over about eight channels a group, for networks between an image and one vector.

    Instance norm gives each feature the same mean in every image, which removes what a global mean would read or z
    would set. Within a group the features keep their relative sizes.
    """
    return nn.GroupNorm(math.gcd(channels, max(1, channels // GROUP)), channels)


def conv_block(channels_in: int, channels_out: int, norm: Norm) -> nn.Sequential:
    """Two 3x3 convolutions, each normalised and followed by ReLU; (B, c_in, H, W) to (B, c_out, H, W)."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False),
        norm(channels_out),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False),
        norm(channels_out),
        nn.ReLU(inplace=True),
    )


def strided_layers(channels_in: int, widths: Sequence[int], norm: Norm) -> list[nn.Module]:
    """4x4 convolutions with LeakyReLU 0.2, of which each halves the side: the body of a discriminator."""
    layers: list[nn.Module] = []
    for below, here in zip([channels_in, *widths[:-1]], widths, strict=True):
        first = not layers
        layers.append(nn.Conv2d(below, here, 4, stride=2, padding=1, bias=first))
        if not first:  # normalising the first layer would hide the image's intensities
            layers.append(norm(here))
        layers.append(nn.LeakyReLU(0.2, inplace=True))
    return layers


def xavier_initialise(network: nn.Module) -> None:
    """Xavier-uniform convolutions with zero biases, everywhere (GANet-Seg, Section 5.4.2)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def small_initialise(network: nn.Module) -> None:
    """N(0, 0.02) with zero biases, for generators of whole images and their discriminators.

    With Xavier's larger weights the first images are full of edges, and training leaves a woven texture over the
    images.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(module.weight, std=SMALL)
            if module.bias is not None:
                nn.init.zeros_(module.bias)

"""Losses of generators of whole images."""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-6


def diversity_loss(one: Tensor, other: Tensor, z: Tensor, other_z: Tensor) -> Tensor:
    """-|G(z1) - G(z2)|_1 / |z1 - z2|_1 for each example, then the mean (Yang et al. 2019, diversity-sensitive GANs).

    Lowest where two different z give two very different images.

    Args:
        one, other: (B, C, H, W) images of one condition.
        z, other_z: (B, K) noise that `one` and `other` were generated from.
    """
    images = (one.float() - other.float()).abs().flatten(1).mean(1)
    noises = (z.float() - other_z.float()).abs().flatten(1).mean(1)
    return torch.mean(-images / (noises + EPSILON))

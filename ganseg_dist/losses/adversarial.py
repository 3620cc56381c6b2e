"""GAN losses on patch logits, the feedback of a frozen discriminator on a mask, and a generator's diversity."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

EPSILON = 1e-6


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor, touched: Tensor) -> Tensor:
    """GANet-Seg Eq. 1: -E[log D(x)] - E[log(1 - D(G(z)))].

    Args:
        real_logits, fake_logits: (B, 1, h, w) patch logits of an image and of its changed copy.
        touched: (B, 1, h, w) in [0, 1], patches that contain changed pixels. The rest of the fake is the real
            image, and to call it fake would add noise alone. Both terms use the same patches: if the real term
            used all, the share of fakes at a position would reveal how likely a patch is fake, and slices of a
            small head, which is mostly hole, would score low for being small.
    """
    real = _weighted_mean(-F.logsigmoid(real_logits.float()), touched)
    fake = _weighted_mean(-F.logsigmoid(-fake_logits.float()), touched)
    return real + fake


def generator_loss(fake_logits: Tensor, touched: Tensor) -> Tensor:
    """GANet-Seg Eq. 2, -E[log D(G(z))] over the patches that contain generated pixels.

    Over the patches of a mask's edge it is Eq. 7 in the corrected reading, on `x * (1 - M) + G(x * (1 - M), M) * M`:
    a mask that covers the whole tumour leaves an image that looks healthy along the mask's edge. (The printed form
    keeps the tumour and rewards the opposite.)
    """
    return _weighted_mean(-F.logsigmoid(fake_logits.float()), touched)


def hole_l1_loss(reconstruction: Tensor, image: Tensor, holes: Tensor) -> Tensor:
    """|x - G(x)|_1 over the holes; image (B, C, H, W), holes (B, 1, H, W). Early stopping of Eqs. 1-2 uses it."""
    return _weighted_mean((reconstruction.float() - image.float()).abs(), holes.expand_as(image))


def edge_map(mask: Tensor, grid: tuple[int, int]) -> Tensor:
    """|Laplacian(dilate5(M))| of GANet-Seg Eqs. 11-12, max-pooled to the discriminator's grid.

    (B, 1, H, W) in [0, 1] to (B, 1, *grid), detached: with a gradient through the weights, a flat mask would minimise
    the loss.
    """
    expanded = F.max_pool2d(mask.detach().float(), 5, stride=1, padding=2)
    return F.adaptive_max_pool2d(laplacian(expanded).abs(), grid)


def edge_map_paper(mask: Tensor, grid: tuple[int, int]) -> Tensor:
    """The edge map of Section 4.1.3 instead of Appendix B: the Laplacian, then a 5x5 max-pool of stride 5."""
    edges = F.max_pool2d(laplacian(mask.detach().float()).abs(), 5, stride=5)
    return F.interpolate(edges, size=grid, mode="nearest")


def laplacian(image: Tensor) -> Tensor:
    """Eq. 12: M[i+1,j] + M[i-1,j] + M[i,j+1] + M[i,j-1] - 4 M[i,j]; (B, 1, H, W), borders replicated."""
    kernel = image.new_tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])[None, None]
    return F.conv2d(F.pad(image, (1, 1, 1, 1), mode="replicate"), kernel)


def adversarial_feedback_loss_paper(filled_logits: Tensor) -> Tensor:
    """Eq. 7 as printed, -E[log(1 - D(G(x * M * E(M))))]; its first term does not depend on the mask."""
    return -F.logsigmoid(-filled_logits.float()).mean()


def diversity_loss(one: Tensor, other: Tensor, z: Tensor, other_z: Tensor) -> Tensor:
    """-|G(z1) - G(z2)|_1 / |z1 - z2|_1 for each example, then the mean (Yang et al. 2019, diversity-sensitive GANs).

    Lowest where two different z (B, K) give two very different images (B, C, H, W) of one condition.
    """
    images = (one.float() - other.float()).abs().flatten(1).mean(1)
    noises = (z.float() - other_z.float()).abs().flatten(1).mean(1)
    return torch.mean(-images / (noises + EPSILON))


def _weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Each example's weighted mean, then the mean over examples; an example without weight counts as 0."""
    weights = weights.float()
    per_example = (values * weights).flatten(1).sum(1) / (weights.flatten(1).sum(1) + EPSILON)
    return torch.mean(per_example)

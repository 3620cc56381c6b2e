"""DiffAugment: random changes of the discriminator's input, real and generated alike (Zhao et al. 2020,
"Differentiable Augmentation for Data-Efficient GAN Training"; its policy "color, translation, cutout").

A discriminator that has memorised a few hundred images gives the generator no useful gradient. Changes that differ in
every step prevent memorising; and because generated images are changed as well, and the gradient passes through the
change, the generator does not learn to produce changed images.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

BRIGHTNESS = 0.5
"""Offset, from [-BRIGHTNESS, BRIGHTNESS] on the [-1, 1] scale."""
CONTRAST = 0.5
"""Factor of the difference from the image's mean, from [1 - CONTRAST, 1 + CONTRAST]."""
TRANSLATION = 0.125
"""Largest shift in each direction, as a share of the side."""
CUTOUT = 0.5
"""Side of the blanked square, as a share of the image's."""


def sample_view(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Sample one image's view, (6,): brightness, contrast, translation down and right, cutout centre down and right.

    Each in [-1, 1), in the units above; the unit of the centre is half the side.
    """
    return rng.uniform(-1, 1, 6).astype(np.float32)


def augment(image: Tensor, view: Tensor) -> Tensor:
    """Apply views (B, 6) to images (B, C, H, W) in [-1, 1], with -1 as background; differentiable."""
    brightness, contrast, down, right, row, column = view.to(image.dtype).T[..., None, None, None]
    mean = image.mean((1, 2, 3), keepdim=True)
    image = (image - mean) * (1 + CONTRAST * contrast) + mean + BRIGHTNESS * brightness
    return _cut_out(_translated(image, down, right), row, column)


def _translated(image: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Shift by whole pixels, so that nothing is smoothed; pixels from outside are background."""
    height, width = image.shape[-2:]
    pixels = [torch.round(shift * TRANSLATION * side) for shift, side in ((right, width), (down, height))]
    moves = [-2 * shift / side for shift, side in zip(pixels, (width, height), strict=True)]
    identity = torch.eye(2, dtype=image.dtype, device=image.device).expand(len(image), 2, 2)
    affine = torch.cat([identity, torch.cat(moves, dim=1)[:, :, 0]], dim=2)
    grid = F.affine_grid(affine, list(image.shape), align_corners=False)
    return F.grid_sample(image + 1, grid, align_corners=False) - 1


def _cut_out(image: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Set a square, which may lie partly outside, to mid-grey."""
    height, width = image.shape[-2:]
    rows = torch.linspace(-1, 1, height, device=image.device)[:, None]
    columns = torch.linspace(-1, 1, width, device=image.device)
    inside = ((rows - row).abs() < CUTOUT) & ((columns - column).abs() < CUTOUT)
    return torch.where(inside, torch.zeros_like(image), image)

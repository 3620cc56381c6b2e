"""The generator of GAN-OSMOSIS: one U-Net trunk that makes images of masks and masks of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ganseg_dist.models.layers import small_initialise, xavier_initialise
from ganseg_dist.models.unet import UNet


class MaskConditionedGenerator(nn.Module):
    """G(z | y) and G(x) of GAN-OSMOSIS (algorithm, lines 8-9), the paper's one theta_G.

    A stem for images, one for conditions (a mask's regions, with the foreground's outline where it is shown), a U-Net
    that both share, and a head for each of the two outputs. With `shared=False` each output has its U-Net and the two
    share no weights. Noise by "dropout" drops coarse decoder features; as a "vector", z joins the condition as constant
    planes.
    """

    def __init__(
        self,
        channels: int,
        conditions: int,
        regions: int,
        widths: Sequence[int],
        *,
        shared: bool = True,
        noise: Literal["dropout", "vector"] = "dropout",
        vector_size: int = 16,
    ) -> None:
        super().__init__()
        finest = widths[0]
        planes = vector_size if noise == "vector" else 0
        self.noise = noise
        self.condition_stem = nn.Conv2d(conditions + planes, finest, 3, padding=1)
        self.image_stem = nn.Conv2d(channels, finest, 3, padding=1)
        self.trunk = UNet(finest, finest, widths, smooth=True)
        self.mask_trunk = None if shared else UNet(finest, finest, widths, smooth=True)
        self.image_head = nn.Conv2d(finest, channels, 1)
        self.mask_head = nn.Conv2d(finest, regions, 1)
        for segmenting in (self.image_stem, self.mask_head):
            xavier_initialise(segmenting)
        for generating in (self.condition_stem, self.image_head):
            small_initialise(generating)

    def generate(self, condition: Tensor, z: Tensor) -> Tensor:
        """G(z | y): an image (B, C, H, W) in (-1, 1) of a condition (B, conditions, H, W) in {0, 1}.

        z is (B, K); for dropout K = `noise_size(widths)` factors, 0 or 1 / (1 - p), else a normal vector.
        """
        if self.noise == "vector":
            condition = torch.cat([condition, z[..., None, None].expand(*z.shape, *condition.shape[-2:])], dim=1)
        features = self.trunk(self.condition_stem(condition), z if self.noise == "dropout" else None)
        return torch.tanh(self.image_head(torch.relu(features)).float())

    def segment(self, image: Tensor) -> Tensor:
        """G(x): logits of the regions (B, R, H, W)."""
        trunk = self.trunk if self.mask_trunk is None else self.mask_trunk
        logits: Tensor = self.mask_head(torch.relu(trunk(self.image_stem(image))))
        return logits


def noise_size(widths: Sequence[int]) -> int:
    """How many coarse features a `UNet` of these widths can drop."""
    return sum(widths[1:])

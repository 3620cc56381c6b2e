"""Synthetic lesions in healthy tissue, which the discriminator must not score as healthy.

They are no model of tumours, and nothing is segmented with them: a discriminator that was only trained on the
generator's fillings scores a real tumour as real tissue, because it is real.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from ganseg_dist.data.batch import DARKEST
from ganseg_dist.systems.ganet_seg.config import HoleConfig
from ganseg_dist.systems.ganet_seg.holes import cut_holes, sample_holes

SHAPE = HoleConfig(count=1, smallest_radius=0.05, largest_radius=0.25, roughness=0.5)


def sample_lesion(channels: int, rng: np.random.Generator) -> dict[str, npt.NDArray[np.float32]]:
    """One example's lesion: outline as `sample_holes`, tone of each channel in [-0.8, 1], opacity in [0.4, 1]."""
    return {
        "lesion_outline": sample_holes(SHAPE, rng),
        "lesion_tone": rng.uniform(-0.8, 1.0, channels).astype(np.float32),
        "lesion_opacity": rng.uniform(0.4, 1.0, 1).astype(np.float32),
    }


def add_lesion(
    image: Tensor, foreground: Tensor, outline: Tensor, tone: Tensor, opacity: Tensor
) -> tuple[Tensor, Tensor]:
    """Blend each channel of (B, C, H, W) in [-1, 1] towards its tone inside a soft-edged outline.

    Outline (B, 1, 4 + 2 * WOBBLES), tone (B, C) and opacity (B, 1) are from `sample_lesion`. Returns the image, and
    where it was changed, (B, 1, H, W) in {0, 1}.
    """
    inside = cut_holes(outline, foreground)
    soft = F.avg_pool2d(inside, 5, stride=1, padding=2) * foreground
    blend = soft * opacity[..., None, None]
    changed = image * (1 - blend) + tone[..., None, None] * blend
    return torch.where(foreground, changed.clamp(DARKEST, 1.0), image), inside

"""Training transforms: parameters are sampled per example, then applied to the batch deterministically."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from ganseg_dist.config import AugmentConfig
from ganseg_dist.data.batch import BACKGROUND, DARKEST, Batch


def sample_augmentation(
    config: AugmentConfig, channels: int, rng: np.random.Generator
) -> dict[str, npt.NDArray[np.float32]]:
    """Sample one example's transform: an affine matrix (2, 3) in grid_sample's frame, gain and shift (C,) each."""
    turn = math.radians(config.rotation_degrees) * rng.uniform(-1, 1)
    zoom = 1 + config.scale * rng.uniform(-1, 1)
    mirror = -1.0 if rng.uniform() < config.flip else 1.0
    cosine, sine = math.cos(turn) / zoom, math.sin(turn) / zoom
    affine = np.array([[mirror * cosine, -sine, 0.0], [mirror * sine, cosine, 0.0]], np.float32)
    return {
        "affine": affine,
        "gain": (1 + config.gain * rng.uniform(-1, 1, channels)).astype(np.float32),
        "shift": (config.shift * rng.uniform(-1, 1, channels)).astype(np.float32),
    }


def augment(batch: Batch) -> Batch:
    """Apply the batch's sampled transforms to image and regions; a batch without any is returned unchanged.

    Intensities change inside the foreground only, are clipped to [-1, 1], and the background stays exactly -1.
    """
    if "affine" not in batch.samples:
        return batch
    affine, gain, shift = (batch.samples[name] for name in ("affine", "gain", "shift"))
    grid = F.affine_grid(affine, list(batch.image.shape), align_corners=False)
    # Shifted so that padding with zeros pads with background.
    image = F.grid_sample(batch.image - BACKGROUND, grid, align_corners=False) + BACKGROUND
    changed = (image * gain[..., None, None] + shift[..., None, None]).clamp(DARKEST, 1.0)
    image = torch.where(image > BACKGROUND, changed, image)
    regions = batch.regions
    if regions.shape[1]:
        regions = F.grid_sample(regions, grid, mode="nearest", align_corners=False)
    return replace(batch, image=image, regions=regions)

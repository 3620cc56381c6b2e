"""Random holes in healthy tissue: parameters are drawn for an example, then cut deterministically."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ganseg_dist.systems.ganet_seg.config import HoleConfig

WOBBLES = 3
"""Harmonics of a hole's outline."""


def sample_holes(config: HoleConfig, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Parameters of `config.count` holes, (count, 4 + 2 * WOBBLES) float32.

    Columns: where in the foreground (0..1, along its pixels in reading order), two radii as a share of the side,
    tilt in radians, then amplitude and angle of each harmonic of the outline.
    """
    count = config.count
    place = rng.uniform(0, 1, (count, 1))
    radii = np.exp(rng.uniform(math.log(config.smallest_radius), math.log(config.largest_radius), (count, 2)))
    tilt = rng.uniform(0, math.pi, (count, 1))
    amplitude = rng.uniform(0, config.roughness / WOBBLES, (count, WOBBLES))
    angle = rng.uniform(0, 2 * math.pi, (count, WOBBLES))
    return np.concatenate([place, radii, tilt, amplitude, angle], axis=1).astype(np.float32)


def cut_holes(parameters: Tensor, foreground: Tensor) -> Tensor:
    """The union of the drawn holes, (B, 1, H, W) float in {0, 1}, within the foreground (B, 1, H, W) bool.

    The parameters are (B, count, 4 + 2 * WOBBLES) from `sample_holes`. An empty foreground gets no hole.
    """
    height, width = foreground.shape[-2:]
    place, radii, tilt, amplitude, angle = torch.split(parameters, [1, 2, 1, WOBBLES, WOBBLES], dim=2)
    # The k-th foreground pixel in reading order, for each drawn share of the foreground's pixels.
    running = foreground.flatten(1).long().cumsum(1)  # (B, H*W)
    wanted = (place[..., 0] * running[:, -1:]).long() + 1
    centre = torch.searchsorted(running, wanted.clamp(max=running[:, -1:])).clamp(max=height * width - 1)
    rows = torch.arange(height, device=foreground.device).view(1, 1, height, 1)
    columns = torch.arange(width, device=foreground.device).view(1, 1, 1, width)
    down = (rows - (centre // width)[..., None, None]).float()
    right = (columns - (centre % width)[..., None, None]).float()
    cosine, sine = tilt.cos()[..., None], tilt.sin()[..., None]
    along = (cosine * right + sine * down) / (radii[..., :1, None] * width)
    across = (cosine * down - sine * right) / (radii[..., 1:, None] * height)
    outline = torch.ones_like(along)
    bearing = torch.atan2(across, along)
    for harmonic in range(WOBBLES):
        wobble = torch.sin((harmonic + 2) * bearing + angle[..., harmonic, None, None])
        outline = outline + amplitude[..., harmonic, None, None] * wobble
    inside = (along.square() + across.square()).sqrt() <= outline  # (B, count, H, W)
    holes: Tensor = inside.any(dim=1, keepdim=True) & foreground
    return holes.float()

"""The mask of the head or brain: all that differs from the background, constant or noisy.

There are two kinds of scan. A skull-stripped one has a background of one exact value; a full head has noise
around it, or a grey level left by a scanner's offset. The voxels alone decide which kind a scan is.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.filters import threshold_otsu

from ganseg_dist.data.grid import Volume

Mask = npt.NDArray[np.bool_]

DUST = 0.003
"""Deviations up to this share of the bright end are background: resampling leaves such values around a
brain, and one grey level of an 8-bit picture (1/255) is still above it."""

CONSTANT_SHARE = 0.2
"""A stripped brain leaves at least this share of its volume at the background value."""

NOISE_SHARE = 0.12
"""Scanner noise fills more of the rest than this with values near the background; a brain's darkest
fluid does not. This distinguishes a zero-padded head from a stripped brain."""

NOISE_LEVEL = 0.05
"""Values up to this share of the bright end count as near the background."""

LARGEST_BRAIN_ML = 2400.0
"""Beyond any intracranial volume: a larger foreground is a head, even with a constant background."""

SPECK = np.ones((3, 3, 1), bool)
"""Noise and flow artefacts are thinner than this in-plane; skin, nose and ears are not."""


def foreground_mask(image: Volume) -> Mask:
    """The head, or the brain of a skull-stripped scan, as one foreground without holes.

    image: (C, X, Y, Z), any intensity range. Returns (X, Y, Z) bool: the union over modalities of what
    differs from the background, holes filled slice by slice along Z, its largest connected part.
    All False when every modality is constant.
    """
    foreground = np.zeros(image.shape[1:], bool)
    noisy = False
    for volume in image:
        deviation, bright = _deviation(volume)
        if bright > 0:
            clean = _has_clean_background(deviation, bright)
            foreground |= deviation > (DUST * bright if clean else _noise_threshold(deviation, bright))
            noisy |= not clean
    # Holes first: a dark skull parts the brain from the skin around it, and the larger of them is not the head.
    foreground = _without_holes(foreground)
    if noisy:  # bright specks touch each other and so the head
        foreground = ndimage.binary_opening(foreground, SPECK)
    return _largest_part(foreground)


def is_skull_stripped(image: Volume, foreground: Mask, spacing_mm: tuple[float, float, float] | None) -> bool:
    """Whether every modality has a background of one exact value and the foreground can be a brain.

    image: (C, X, Y, Z); foreground: its `foreground_mask`, (X, Y, Z). With spacing_mm, a whole head whose
    background was zeroed is recognised by its volume; without, the volume is not checked.
    """
    backgrounds = (_deviation(volume) for volume in image)
    if not all(bright > 0 and _has_clean_background(deviation, bright) for deviation, bright in backgrounds):
        return False
    return spacing_mm is None or float(foreground.sum()) * math.prod(spacing_mm) / 1000 <= LARGEST_BRAIN_ML


def _deviation(volume: Volume) -> tuple[Volume, float]:
    """Distance of each voxel from the background value, and the bright end of these distances (their 99% quantile)."""
    deviation = np.abs(volume - np.float32(_background_value(volume)))
    sample = _sample(deviation)
    positive = sample[sample > 0]
    return deviation, float(np.quantile(positive, 0.99)) if positive.size else 0.0


def _background_value(volume: Volume) -> float:
    """The median over the in-plane border, which lies outside the head even where some of it is cut."""
    border = (volume[0], volume[-1], volume[:, 0], volume[:, -1])
    return float(np.median(np.concatenate([face.ravel() for face in border])))


def _has_clean_background(deviation: Volume, bright: float) -> bool:
    sample = _sample(deviation)
    background = sample <= DUST * bright
    if background.mean() < CONSTANT_SHARE:
        return False
    return bool((sample[~background] <= NOISE_LEVEL * bright).mean() < NOISE_SHARE)


def _noise_threshold(deviation: Volume, bright: float) -> float:
    """Otsu's threshold between noise and tissue, on square roots of intensities.

    On plain intensities the skin's bright fat pulls the threshold above dark tissue, and the head's
    interior opens where its outline is cut by the frame.
    """
    return float(threshold_otsu(np.sqrt(np.minimum(_sample(deviation), bright)).ravel())) ** 2


def _sample(volume: Volume) -> Volume:
    """Enough voxels for a histogram: every n-th along each axis of a large volume, all of a small one."""
    step = max(1, round((volume.size / 500_000) ** (1 / 3)))
    strides = tuple(slice(None, None, step if length >= 64 else 1) for length in volume.shape)
    return volume[strides]


def _largest_part(foreground: Mask) -> Mask:
    parts, count = ndimage.label(foreground)
    if count <= 1:
        return foreground
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return np.asarray(parts == sizes.argmax())


def _without_holes(foreground: Mask) -> Mask:
    """Background that cannot reach its slice's border becomes foreground."""
    in_plane = np.zeros((3, 3, 3), bool)
    in_plane[:, 1, 1] = in_plane[1, :, 1] = True
    gaps, count = ndimage.label(~foreground, structure=in_plane)
    open_gaps = np.zeros(count + 1, bool)
    for border in (gaps[0], gaps[-1], gaps[:, 0], gaps[:, -1]):
        open_gaps[np.unique(border)] = True
    open_gaps[0] = False
    return np.asarray(~open_gaps[gaps])

"""What a scanner does to a scan: noise, an uneven coil, another contrast, a sequence left out.

A scan is changed on its native grid, before anything is prepared of it, and inside the body alone: a background of one
exact value is put there after the scanner, by whoever took the skull off. All is drawn from the generator that is
given, in the order of the modalities; strength 0 changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from numpy.polynomial.legendre import leggrid3d

from ganseg_dist.data.cohort import COLOURS, MODALITIES
from ganseg_dist.data.foreground import foreground
from ganseg_dist.data.scan import BRIGHTEST, Scan, Volume

Mask = npt.NDArray[np.bool_]
Tissue = npt.NDArray[np.float64]
"""(n,) intensities of the voxels of a body."""

BIAS_DEGREE = 3
"""Of the polynomial that the logarithm of a coil's sensitivity is."""


def perturb(scan: Scan, kind: str, strength: float, rng: np.random.Generator) -> Scan:
    """The scan as it might have been: every modality changed by itself, grid and labels the same.

    Args:
        kind: one of `KINDS`.
        strength: 0 or more; what it measures is said where the kind is.
    """
    body = foreground(scan.image)
    if not body.any():
        return scan
    changed = [
        _put(volume, body, KINDS[kind](volume, body, strength, rng), BRIGHTEST if name in COLOURS else None)
        for name, volume in zip(scan.modalities, scan.image, strict=True)
    ]
    return replace(scan, image=np.stack(changed))


def without(scan: Scan, modality: str) -> Scan:
    """The scan with an empty file in the place of one modality: one value everywhere, its darkest."""
    image = scan.image.copy()
    missing = scan.modalities.index(modality)
    image[missing] = image[missing].min()
    return replace(scan, image=image)


def gaussian_noise(volume: Volume, body: Mask, strength: float, rng: np.random.Generator) -> Tissue:
    """x + sigma n; sigma is `strength` times the range of the tissue."""
    tissue = _tissue(volume, body)
    return tissue + strength * _range(tissue) * rng.standard_normal(tissue.shape)


def rician_noise(volume: Volume, body: Mask, strength: float, rng: np.random.Generator) -> Tissue:
    """|x + sigma (n1 + i n2)|: noise of a magnitude image (Gudbjartsson and Patz 1995), which brightens what is dark.

    The darkest voxel of the volume stands for no signal; sigma is `strength` times the range of the tissue.
    """
    tissue, dark = _tissue(volume, body), float(volume.min())
    real, imaginary = strength * _range(tissue) * rng.standard_normal((2, len(tissue)))
    return dark + np.hypot(tissue - dark + real, imaginary)


def bias_field(volume: Volume, body: Mask, strength: float, rng: np.random.Generator) -> Tissue:
    """x exp(strength f), f a random polynomial of the third degree with its largest |f| in the body at 1.

    The darkest voxel of the volume stands for no signal.
    """
    tissue, dark = _tissue(volume, body), float(volume.min())
    field = _smooth_field(volume.shape, rng)[body]
    return dark + (tissue - dark) * np.exp(strength * field / np.abs(field).max())


def gamma(volume: Volume, body: Mask, strength: float, rng: np.random.Generator) -> Tissue:
    """Another contrast: x^exp(strength) or x^exp(-strength), whichever is drawn, of tissue scaled to [0, 1] and back."""
    tissue = _tissue(volume, body)
    dark, reach = float(tissue.min()), float(np.ptp(tissue))
    exponent = math.exp(strength * rng.choice((-1, 1)))
    return tissue if reach == 0 else dark + reach * ((tissue - dark) / reach) ** exponent


KINDS: Mapping[str, Callable[[Volume, Mask, float, np.random.Generator], Tissue]] = {
    "Gaussian noise": gaussian_noise,
    "Rician noise": rician_noise,
    "bias field": bias_field,
    "gamma": gamma,
}
"""Each gives the body's new intensities of one modality."""


def kinds_for(modalities: tuple[str, ...]) -> tuple[str, ...]:
    """The kinds that such images can have: noise is Rician in MRI alone."""
    magnetic = set(modalities) <= set(MODALITIES)
    return tuple(kind for kind in KINDS if magnetic or kind != "Rician noise")


def _put(volume: Volume, body: Mask, tissue: Tissue, brightest: int | None) -> Volume:
    changed = volume.copy()
    changed[body] = tissue if brightest is None else tissue.clip(0, brightest)
    return changed


def _tissue(volume: Volume, body: Mask) -> Tissue:
    return volume[body].astype(np.float64)


def _range(tissue: Tissue) -> float:
    """From the 1st to the 99th percentile: an outlier must not decide how strong a noise is."""
    low, high = np.percentile(tissue, (1, 99))
    return float(high - low)


def _smooth_field(shape: tuple[int, ...], rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """(X, Y, Z) random Legendre polynomial over the cube [-1, 1]^3, without its constant."""
    degree = np.indices((BIAS_DEGREE + 1,) * 3).sum(axis=0)
    coefficients = rng.uniform(-1, 1, degree.shape) * ((degree > 0) & (degree <= BIAS_DEGREE))
    field: npt.NDArray[np.float64] = leggrid3d(*(np.linspace(-1, 1, length) for length in shape), coefficients)
    return field

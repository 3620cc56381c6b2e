"""Perturbations that a scanner causes: noise, an uneven coil, another contrast, a missing sequence.

A scan is changed on its native grid, before preparation. A background of one exact value is unchanged, as
skull-stripping sets it after the scan. All random numbers come from the given generator, in the order of the
modalities; strength 0 changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from numpy.polynomial.legendre import leggrid3d

from ganseg_dist.data.cohort import COLOURS, MODALITIES
from ganseg_dist.data.foreground import Mask, foreground_mask, is_skull_stripped
from ganseg_dist.data.picture import BRIGHTEST
from ganseg_dist.data.scan import Scan

Signal = npt.NDArray[np.float64]
"""(X, Y, Z) intensities before they are rounded."""

BIAS_DEGREE = 3
"""Degree of the polynomial that models the logarithm of a coil's sensitivity."""


def perturb(scan: Scan, kind: str, strength: float, rng: np.random.Generator) -> Scan:
    """A scan perturbed by one of `KINDS`: every modality is changed independently; grid and labels stay.

    The strength is 0 or more; the kind's function defines what it measures.
    """
    foreground = foreground_mask(scan.image)
    if not foreground.any():
        return scan
    scanned = foreground if is_skull_stripped(scan.image, foreground, None) else np.ones_like(foreground)
    changed = []
    for name, volume in zip(scan.modalities, scan.image, strict=True):
        signal = KINDS[kind](volume.astype(np.float64), foreground, strength, rng)
        if name in COLOURS:
            signal = signal.clip(0, BRIGHTEST)
        changed.append(np.where(scanned, signal, volume).astype(np.float32))
    return replace(scan, image=np.stack(changed))


def without(scan: Scan, modality: str) -> Scan:
    """The scan with one modality missing: constant at its darkest value.

    Preparation finds the foreground in the other modalities and turns the constant into the grey of median tissue.
    """
    image = scan.image.copy()
    missing = scan.modalities.index(modality)
    image[missing] = image[missing].min()
    return replace(scan, image=image)


def gaussian_noise(signal: Signal, foreground: Mask, strength: float, rng: np.random.Generator) -> Signal:
    """Return x + sigma n, n standard normal; sigma is `strength` times the range of the tissue."""
    return signal + strength * _range(signal[foreground]) * rng.standard_normal(signal.shape)


def rician_noise(signal: Signal, foreground: Mask, strength: float, rng: np.random.Generator) -> Signal:
    """|x + sigma (n1 + i n2)|: noise of a magnitude image (Gudbjartsson and Patz 1995), which brightens dark voxels.

    The darkest voxel is taken as no signal; sigma is `strength` times the range of the tissue.
    """
    dark = float(signal.min())
    real, imaginary = strength * _range(signal[foreground]) * rng.standard_normal((2, *signal.shape))
    magnitude: Signal = np.hypot(signal - dark + real, imaginary)
    return dark + magnitude


def bias_field(signal: Signal, foreground: Mask, strength: float, rng: np.random.Generator) -> Signal:
    """X exp(strength f), x counted from the darkest voxel, f a random cubic with max |f| = 1 in the foreground."""
    dark = float(signal.min())
    field = _smooth_field(signal.shape, rng)
    gain: Signal = np.exp(strength * field / np.abs(field[foreground]).max())
    return dark + (signal - dark) * gain


def gamma(signal: Signal, foreground: Mask, strength: float, rng: np.random.Generator) -> Signal:
    """Another contrast: x^exp(strength) or x^exp(-strength), equally likely, x scaled to [0, 1] and back."""
    dark, reach = float(signal.min()), float(np.ptp(signal))
    exponent = math.exp(strength * rng.choice((-1, 1)))
    return signal if reach == 0 else dark + reach * ((signal - dark) / reach) ** exponent


KINDS: Mapping[str, Callable[[Signal, Mask, float, np.random.Generator], Signal]] = {
    "Gaussian noise": gaussian_noise,
    "Rician noise": rician_noise,
    "bias field": bias_field,
    "gamma": gamma,
}
"""Kind of perturbation to the function that returns one modality's new intensities."""


def kinds_for(modalities: tuple[str, ...]) -> tuple[str, ...]:
    """The kinds that apply to these modalities: only MRI has Rician noise."""
    magnetic = set(modalities) <= set(MODALITIES)
    return tuple(kind for kind in KINDS if magnetic or kind != "Rician noise")


def _range(tissue: npt.NDArray[np.float64]) -> float:
    """Distance of the 1st and the 99th percentile: an outlier must not decide how strong the noise is."""
    low, high = np.percentile(tissue, (1, 99))
    return float(high - low)


def _smooth_field(shape: tuple[int, ...], rng: np.random.Generator) -> Signal:
    """(X, Y, Z) random Legendre polynomial over the cube [-1, 1]^3, without its constant."""
    degree = np.indices((BIAS_DEGREE + 1,) * 3).sum(axis=0)
    coefficients = rng.uniform(-1, 1, degree.shape) * ((degree > 0) & (degree <= BIAS_DEGREE))
    x, y, z = (np.linspace(-1, 1, length) for length in shape)
    return np.asarray(leggrid3d(x, y, z, coefficients), np.float64)

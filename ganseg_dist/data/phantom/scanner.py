"""A phantom's scanners: tissue contrasts, and how sites' images differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.special import expit
from scipy.stats import qmc

from ganseg_dist.data.cohort import MODALITIES
from ganseg_dist.data.grid import Grid, Volume
from ganseg_dist.data.phantom.anatomy import Brain, origin_and_spacing, smooth_noise
from ganseg_dist.data.phantom.tumour import Tumour

CONTRASTS: Mapping[str, Mapping[str, float]] = {
    "t1": {"fluid": 0.22, "grey": 0.60, "white": 0.85, "gliosis": 0.58, "vessel": 0.62,
           "necrosis": 0.36, "solid": 0.50, "enhancing": 0.58, "oedema": 0.56},
    "t1ce": {"fluid": 0.22, "grey": 0.63, "white": 0.84, "gliosis": 0.60, "vessel": 1.25,
             "necrosis": 0.38, "solid": 0.54, "enhancing": 1.15, "oedema": 0.58},
    "t2": {"fluid": 1.20, "grey": 0.62, "white": 0.42, "gliosis": 0.72, "vessel": 0.30,
           "necrosis": 0.98, "solid": 0.88, "enhancing": 0.72, "oedema": 0.88},
    "flair": {"fluid": 0.16, "grey": 0.65, "white": 0.50, "gliosis": 0.94, "vessel": 0.40,
              "necrosis": 0.60, "solid": 0.84, "enhancing": 0.78, "oedema": 0.94},
}  # fmt: skip
"""Signal of each pure tissue, in units of the brightest healthy one or so. Gliosis: the bright white-matter
spots and periventricular caps of healthy ageing."""
TEXTURE: Mapping[str, float] = {"t1": 1.0, "t1ce": 1.0, "t2": -0.7, "flair": -0.5}
"""Factor of the template's own T1 texture; negative in fluid-weighted contrasts."""


@dataclass(frozen=True, slots=True)
class Site:
    """One hospital's acquisition settings."""

    name: str
    gain: Mapping[str, float]
    """Stored units per unit of signal, by modality."""
    tissue: Mapping[str, Mapping[str, float]]
    """Signal of each tissue, by modality: `CONTRASTS` as this site's echo and repetition times change them."""
    gamma: float
    noise: float
    """Standard deviation of the Rician noise, in units of signal."""
    bias: float
    """Standard deviation of the logarithm of the coil's shading."""
    slice_mm: float
    """Thickness of axial slices, simulated as blur along z."""
    lesion_contrast: float
    """Strength of the tumours' contrast, as a share of the tissue table's."""


def sample_site(seed: int, index: int) -> Site:
    """Sample the settings of one site. Consecutive sites lie far apart, and none depends on the number of sites."""
    # A Halton sequence fills the box of settings evenly with any number of points.
    gamma, noise, bias, slice_mm, lesion = qmc.Halton(5, seed=seed).random(index + 1)[index]
    rng = np.random.default_rng([seed, 2, index])
    return Site(
        name=f"site_{index + 1}",
        gain={modality: round(float(np.exp(rng.normal(6.2, 0.5))), 1) for modality in MODALITIES},
        tissue={
            modality: {name: round(level * float(np.exp(rng.normal(0, 0.07))), 4) for name, level in table.items()}
            for modality, table in CONTRASTS.items()
        },
        gamma=round(0.75 + 0.6 * gamma, 3),
        noise=round(0.008 + 0.02 * noise, 4),
        bias=round(0.04 + 0.09 * bias, 3),
        slice_mm=round(1 + 4 * slice_mm, 2),
        lesion_contrast=round(0.8 + 0.2 * lesion, 3),
    )


def acquire(rng: np.random.Generator, site: Site, brain: Brain, tumour: Tumour) -> dict[str, npt.NDArray[np.int16]]:
    """The four modalities as stored, (X, Y, Z) int16: 0 outside the brain, at least 1 inside."""
    grid = brain.grid
    tissues = _tissue_shares(rng, brain, tumour, site.lesion_contrast)
    grain = 0.02 * smooth_noise(rng, grid, 4) + 0.03 * smooth_noise(rng, grid, 30)
    images = {}
    for modality in MODALITIES:
        table = site.tissue[modality]
        signal = sum((table[name] * share for name, share in tissues.items()), np.zeros(grid.shape, np.float32))
        healthy = tissues["grey"] + tissues["white"]
        signal = signal * (1 + grain) + TEXTURE[modality] * brain.texture * healthy
        scanned = _scan(rng, site, np.clip(signal, 0, None), grid)
        gain = site.gain[modality] * np.exp(rng.normal(0, 0.1))
        stored = np.clip(np.rint(gain * scanned), 1, np.iinfo(np.int16).max)
        images[modality] = np.where(brain.inside, stored, 0).astype(np.int16)
    return images


def _tissue_shares(rng: np.random.Generator, brain: Brain, tumour: Tumour, lesion_contrast: float) -> dict[str, Volume]:
    """Share of each tissue in a voxel's signal, summing to 1; tumours are weighted by their contrast."""
    gliosis = _gliosis(rng, brain)
    vessel = _vessels(rng, brain)
    shares = {
        "fluid": brain.fluid,
        "grey": brain.grey,
        "white": brain.white * (1 - gliosis),
        "gliosis": brain.white * gliosis,
    }
    shares = {name: share * (1 - vessel) for name, share in shares.items()} | {"vessel": vessel}
    patchy = np.clip(1 + 0.25 * smooth_noise(rng, brain.grid, 8), 0, 1.3)
    strength = {
        "necrosis": np.float32(1),
        "solid": lesion_contrast * rng.uniform(0.6, 1) * patchy,
        "enhancing": lesion_contrast * rng.uniform(0.7, 1) * patchy,
        "oedema": lesion_contrast * rng.uniform(0.62, 1) * patchy,
    }
    lesions = {name: np.clip(share * strength[name], 0, 1) for name, share in tumour.shares.items()}
    healthy_share = 1 - np.clip(sum(lesions.values()), 0, 1)
    return {name: share * healthy_share for name, share in shares.items()} | lesions


def _gliosis(rng: np.random.Generator, brain: Brain) -> Volume:
    """Share of white matter that is bright on FLAIR in healthy ageing: caps at the ventricles, scattered spots."""
    grid = brain.grid
    ventricles = brain.fluid * (brain.depth_mm > 25)
    near_ventricles = ndimage.gaussian_filter(ventricles, 4.0 / origin_and_spacing(grid)[1])
    age = rng.random()
    caps = np.clip((0.5 + 2.0 * age) * near_ventricles * (1 + 0.5 * smooth_noise(rng, grid, 12)), 0, 1)
    spots = expit((smooth_noise(rng, grid, 7) - (2.9 - 1.2 * age)) / 0.15) * (brain.depth_mm > 8)
    return np.asarray(np.maximum(caps, spots), dtype=np.float32)


def _vessels(rng: np.random.Generator, brain: Brain) -> Volume:
    """Tubes where two smooth fields vanish together, in fluid and at the cortex: bright after contrast."""
    first, second = (smooth_noise(rng, brain.grid, 16) for _ in range(2))
    tubes = np.exp(-(first**2 + second**2) / (2 * 0.12**2))
    return np.asarray(tubes * np.clip(brain.fluid + 0.3 * brain.grey, 0, 1), dtype=np.float32)


def _scan(rng: np.random.Generator, site: Site, signal: Volume, grid: Grid) -> npt.NDArray[np.float64]:
    """Thick slices, display curve, coil shading and Rician noise."""
    spacing_mm = origin_and_spacing(grid)[1]
    # Standard deviation of a box of slice_mm, minus that of the voxel's own box (in variance).
    blur_mm = np.sqrt(max(0.0, site.slice_mm**2 - spacing_mm**2) / 12)
    blurred = ndimage.gaussian_filter1d(signal, blur_mm / spacing_mm, axis=2) if blur_mm > 0 else signal
    shaded = blurred**site.gamma * np.exp(site.bias * smooth_noise(rng, grid, 90))
    real, imaginary = rng.normal(0, site.noise, (2, *grid.shape))
    return np.asarray(np.hypot(shaded + real, imaginary))

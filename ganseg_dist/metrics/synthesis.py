"""How near synthetic images are to real ones: as distributions of features, pair by pair, and in how much they differ.

Whose features they are decides what a distance is called: see `synthesis/encoder.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import skimage.metrics
import torch
from sklearn.metrics import pairwise_distances_chunked
from torchmetrics.image.kid import poly_mmd

from ganseg_dist.errors import DataError
from ganseg_dist.metrics.registry import SCORES
from ganseg_dist.metrics.statistics import Interval, mean_interval

Features = npt.NDArray[np.floating]
Images = npt.NDArray[np.floating]

LARGEST_SUBSET = 1000
"""Features in a subset of the kernel distance at most (Bińkowski et al. 2018)."""
SUBSETS = 100
FEWEST_IMAGES = 4
"""In each set, for a kernel distance: two in a subset that is half of them."""
SSIM_WINDOW = 11
CHUNK_MB = 256


@dataclass(frozen=True, slots=True)
class FrechetDistance:
    """The distance and what it rests on. It is biased upwards by few images: compare it at equal n alone."""

    value: float
    """At least 0."""
    n_synthetic: int
    n_real: int
    dimensions: int
    """Of a feature. With no more images than this a covariance is singular, and the bias large."""


@dataclass(frozen=True, slots=True)
class KernelDistance:
    """The mean over subsets, its standard error and what they rest on."""

    mean: float
    """Unbiased, and so below 0 by chance where the distributions are the same."""
    standard_error: float
    n_synthetic: int
    n_real: int
    subset_size: int


@dataclass(frozen=True, slots=True)
class Diversity:
    """Mean Euclidean distance between two different images of a set."""

    synthetic: float
    real: float
    ratio: float | None
    """Synthetic to real: near 0 where the generator has collapsed; None where the real images are all the same."""
    n_synthetic: int
    n_real: int


def frechet_distance(synthetic: Features, real: Features) -> FrechetDistance:
    """|m_s - m_r|^2 + Tr(C_s + C_r - 2 (C_s C_r)^(1/2)) of features (N, D) and (M, D) (Heusel et al. 2017, Eq. 6).

    Means m and covariances C over the images. Defined from two images a set.

    Raises DataError when a set has fewer, the features are not finite or differ in length.
    """
    _check_features(synthetic, real, fewest=2, measure="Frechet distance")
    means, roots = zip(*(_mean_and_root(features) for features in (synthetic, real)), strict=True)
    spread = sum(float((root**2).sum()) for root in roots)
    # C = R'R, so that the eigenvalues of C_s C_r are the squared singular values of R_s R_r'. No matrix root is
    # taken: of singular covariances, which few images have, it would be complex or fail.
    shared = float(np.linalg.norm(roots[0] @ roots[1].T, "nuc"))
    distance = float(((means[0] - means[1]) ** 2).sum()) + spread - 2 * shared
    return FrechetDistance(max(distance, 0.0), len(synthetic), len(real), synthetic.shape[1])


def kernel_distance(synthetic: Features, real: Features, *, seed: int = 0) -> KernelDistance:
    """KID: unbiased squared MMD of features (N, D), (M, D), kernel (x'y / D + 1)^3 (Bińkowski et al. 2018, Sec. 4).

    The mean over 100 subsets, each of m = min(1000, half the smaller set) features of either set, drawn without
    replacement. The standard error is that of the whole set of n, not of the mean over overlapping subsets: a
    statistic of m of n has the variance s^2 (1/m - 1/n) over the draws, where that of all n has s^2 / n.

    Raises DataError when a set has fewer than four features, they are not finite or differ in length.
    """
    _check_features(synthetic, real, fewest=FEWEST_IMAGES, measure="kernel distance")
    n = min(len(synthetic), len(real))
    size = min(LARGEST_SUBSET, n // 2)
    rng = np.random.default_rng(seed)
    ours, theirs = (torch.from_numpy(np.asarray(features, np.float64)) for features in (synthetic, real))
    values = []
    for _ in range(SUBSETS):
        of_synthetic, of_real = (
            features[rng.choice(len(features), size, replace=False)] for features in (ours, theirs)
        )
        values.append(float(poly_mmd(of_real, of_synthetic)))
    error = float(np.std(values, ddof=1)) * (size / (n - size)) ** 0.5
    return KernelDistance(float(np.mean(values)), error, len(synthetic), len(real), size)


def structural_similarity(synthetic: Images, real: Images, patients: Sequence[str] | None = None) -> Interval:
    """Mean SSIM of pairs of images (N, C, H, W) in [-1, 1], data range 2, with its 95% interval over patients.

    Gaussian window of 11 pixels, sigma 1.5 (Wang et al. 2004), where it lies within the image: no padding is compared.
    A pair is a painting and the real image whose mask it was painted from.

    Raises DataError when the shapes differ, a side is shorter than the window or an intensity lies outside [-1, 1].
    """
    if synthetic.ndim != 4 or synthetic.shape != real.shape or not len(real):
        raise DataError(
            f"SSIM: synthetic images {synthetic.shape} beside real ones {real.shape}; give pairs of one (N, C, H, W)"
        )
    if min(real.shape[2:]) < SSIM_WINDOW:
        raise DataError(f"SSIM: images of {real.shape[2:]} pixels; its window needs {SSIM_WINDOW} on each side")
    for name, images in (("synthetic", synthetic), ("real", real)):
        # Written so that NaN fails too.
        if not (images.min() >= -1 and images.max() <= 1):
            raise DataError(f"SSIM: {name} images have intensities outside [-1, 1]; scale them as prepared images are")
    values = [ssim(ours, theirs) for ours, theirs in zip(synthetic, real, strict=True)]
    return mean_interval(values, patients, bounds=SCORES["ssim"].bounds)


def ssim(image: Images, other: Images) -> float:
    """SSIM of two images (C, H, W) in [-1, 1], the mean over channels, as `structural_similarity` describes it."""
    wide = (np.asarray(of, np.float64) for of in (image, other))
    of_wang = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return float(skimage.metrics.structural_similarity(*wide, data_range=2.0, channel_axis=0, **of_wang))


def diversity(synthetic: Features | Images, real: Features | Images) -> Diversity:
    """Mean pairwise distance within the synthetic images against that within the real ones; (N, D) or (N, C, H, W).

    Raises DataError when a set has fewer than two images, they are not finite or differ in shape.
    """
    ours, theirs = (np.reshape(images, (len(images), -1)) for images in (synthetic, real))
    _check_features(ours, theirs, fewest=2, measure="diversity")
    of_synthetic, of_real = _mean_pairwise_distance(ours), _mean_pairwise_distance(theirs)
    ratio = of_synthetic / of_real if of_real else None
    return Diversity(of_synthetic, of_real, ratio, len(ours), len(theirs))


def _mean_and_root(features: Features) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean (D,) and an R (min(N, D), D) with R'R the covariance."""
    exact = np.asarray(features, np.float64)
    mean = exact.mean(axis=0)
    return mean, np.linalg.qr((exact - mean) / (len(exact) - 1) ** 0.5).R


def _mean_pairwise_distance(features: Features) -> float:
    # Of differences: by products, as "euclidean", equal images would differ by what rounding leaves.
    chunks = pairwise_distances_chunked(features, metric="minkowski", working_memory=CHUNK_MB)
    total = sum(float(chunk.sum(dtype=np.float64)) for chunk in chunks)
    return total / (len(features) * (len(features) - 1))


def _check_features(synthetic: Features, real: Features, *, fewest: int, measure: str) -> None:
    if synthetic.ndim != 2 or real.ndim != 2 or synthetic.shape[1] != real.shape[1] or not real.shape[1]:
        raise DataError(
            f"{measure}: synthetic features {synthetic.shape} beside real ones {real.shape}; give (N, D) and (M, D)"
        )
    for name, features in (("synthetic", synthetic), ("real", real)):
        if len(features) < fewest:
            raise DataError(f"{measure}: {len(features)} {name} image(s); give at least {fewest}")
        if not np.isfinite(features).all():
            raise DataError(f"{measure}: {name} features are not all finite; check the images")

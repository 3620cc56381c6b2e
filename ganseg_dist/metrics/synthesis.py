"""Similarity of synthetic and real images: of feature distributions, of pairs, and of their diversity.

The name of a distance depends on the encoder of its features: see `synthesis/encoder.py`.
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
"""Most features in a subset of the kernel distance (Bińkowski et al. 2018)."""
SUBSETS = 100
FEWEST_IMAGES = 4
"""Fewest images per set for a kernel distance, whose subsets are half of a set and need two."""
SSIM_WINDOW = 11
CHUNK_MB = 256
"""Memory of a block of distances between all pairs, in MiB."""


@dataclass(frozen=True, slots=True)
class FrechetDistance:
    """The distance and the sizes of its sets. Few images bias it upwards: compare only at equal n."""

    value: float
    """At least 0."""
    n_synthetic: int
    n_real: int
    dimensions: int
    """Length of a feature. With no more images than this a covariance is singular, and the bias large."""


@dataclass(frozen=True, slots=True)
class KernelDistance:
    """The mean over subsets, its standard error and the sizes of sets and subsets."""

    mean: float
    """Unbiased, so it can be below 0 where the distributions are the same."""
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
    # C = R'R, so the eigenvalues of C_s C_r are the squared singular values of R_s R_r'. A matrix root is avoided:
    # for the singular covariances of few images it would be complex or fail.
    shared = float(np.linalg.norm(roots[0] @ roots[1].T, "nuc"))
    distance = float(((means[0] - means[1]) ** 2).sum()) + spread - 2 * shared
    return FrechetDistance(max(distance, 0.0), len(synthetic), len(real), synthetic.shape[1])


def kernel_distance(synthetic: Features, real: Features, *, seed: int = 0) -> KernelDistance:
    """KID: unbiased squared MMD of features (N, D), (M, D), kernel (x'y / D + 1)^3 (Bińkowski et al. 2018, Sec. 4).

    The mean over 100 subsets, each of m = min(1000, half the smaller set) features of either set, sampled without
    replacement. The standard error is that of the whole set of n, not of the mean over overlapping subsets: a
    statistic of m of n has the variance s^2 (1/m - 1/n) over the samples, where that of all n has s^2 / n.

    Raises DataError when a set has fewer than four features, they are not finite or differ in length.
    """
    _check_features(synthetic, real, fewest=FEWEST_IMAGES, measure="kernel distance")
    n = min(len(synthetic), len(real))
    size = min(LARGEST_SUBSET, n // 2)
    rng = np.random.default_rng(seed)
    synthetic_features, real_features = (
        torch.from_numpy(np.asarray(features, np.float64)) for features in (synthetic, real)
    )
    values = []
    for _ in range(SUBSETS):
        synthetic_subset, real_subset = (
            features[rng.choice(len(features), size, replace=False)] for features in (synthetic_features, real_features)
        )
        values.append(float(poly_mmd(real_subset, synthetic_subset)))
    error = float(np.std(values, ddof=1)) * (size / (n - size)) ** 0.5
    return KernelDistance(float(np.mean(values)), error, len(synthetic), len(real), size)


def structural_similarity(synthetic: Images, real: Images, patients: Sequence[str] | None = None) -> Interval:
    """Mean SSIM of pairs of images (N, C, H, W) in [-1, 1], data range 2, with its 95% interval over patients.

    Gaussian window of 11 pixels, sigma 1.5 (Wang et al. 2004), only where it lies within the image, without padding.
    A pair is a generated image and the real image whose mask it was generated from.

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
    values = [ssim(image, other) for image, other in zip(synthetic, real, strict=True)]
    return mean_interval(values, patients, bounds=SCORES["ssim"].bounds)


def ssim(image: Images, other: Images) -> float:
    """SSIM of two images (C, H, W) in [-1, 1], the mean over channels, as `structural_similarity` describes it."""
    arrays = (np.asarray(array, np.float64) for array in (image, other))
    wang_settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return float(skimage.metrics.structural_similarity(*arrays, data_range=2.0, channel_axis=0, **wang_settings))


def diversity(synthetic: Features | Images, real: Features | Images) -> Diversity:
    """Mean pairwise distance within the synthetic images against that within the real ones; (N, D) or (N, C, H, W).

    Raises DataError when a set has fewer than two images, they are not finite or differ in shape.
    """
    synthetic_vectors, real_vectors = (np.reshape(images, (len(images), -1)) for images in (synthetic, real))
    _check_features(synthetic_vectors, real_vectors, fewest=2, measure="diversity")
    synthetic_distance, real_distance = (
        _mean_pairwise_distance(synthetic_vectors),
        _mean_pairwise_distance(real_vectors),
    )
    ratio = synthetic_distance / real_distance if real_distance else None
    return Diversity(synthetic_distance, real_distance, ratio, len(synthetic_vectors), len(real_vectors))


def _mean_and_root(features: Features) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean (D,) and an R (min(N, D), D) with R'R the covariance."""
    exact = np.asarray(features, np.float64)
    mean = exact.mean(axis=0)
    return mean, np.linalg.qr((exact - mean) / (len(exact) - 1) ** 0.5).R


def _mean_pairwise_distance(features: Features) -> float:
    # From differences: "euclidean" uses products, by whose rounding errors equal images would differ.
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

"""K-means of a scan's tissue: the initial segmentation of DL-GAN-CNN, Section 4.3."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from ganseg_dist.data.grid import Volume

if TYPE_CHECKING:
    from sklearn.cluster import KMeans

Mask = npt.NDArray[np.bool_]
Points = npt.NDArray[np.float64]

LESION_BRIGHT = ("flair", "t2")
"""Modalities on which lesions are bright, the clearest first."""

MOST_POINTS = 20_000
"""Most pixels that centroids are fitted to; all pixels are then assigned to the centroids."""

STARTS = 4
"""K-means++ starts, of which the best is kept."""

SEED = 0
"""Fixed, so that a scan's clusters do not depend on the run's seed."""


def initial_mask(
    volume: Volume, foreground: Mask, k: int, *, by: Literal["intensity", "coordinates"] = "intensity"
) -> Mask:
    """The brightest of k clusters, in the shape of `foreground`; empty where tissue has fewer than k intensities.

    The paper's generator takes a binary mask, and k = 3 clusters are not binary: the brightest one is used.
    """
    return np.asarray(clusters(volume, foreground, k, by=by) == k)


def clusters(
    volume: Volume, foreground: Mask, k: int, *, by: Literal["intensity", "coordinates"] = "intensity"
) -> npt.NDArray[np.int64]:
    """Tissue in k clusters (Eq. 5), numbered from the dimmest, 1, to the brightest, k; 0 outside the foreground.

    The result does not depend on the number of threads. All 0 where there are fewer than k different points. A volume
    is (H, W) or a stack (S, H, W), which is clustered as one, so that bright means bright in the whole scan.

    By "intensity", as in the paper's text, k-means compares values; by "coordinates", Eq. 4 as printed, it compares
    positions in the plane, and cuts the foreground into k parts.
    """
    labels = np.zeros(foreground.shape, np.int64)
    intensities = _intensities(volume, foreground)
    points = intensities if by == "intensity" else np.argwhere(foreground)[:, -2:].astype(np.float64)
    sample = _sample(points, MOST_POINTS)
    if len(np.unique(sample, axis=0)) < k:
        return labels
    with threadpool_limits(limits=1, user_api="openmp"):  # the order in which threads add up varies
        assigned = _kmeans(k).fit(sample).predict(points)
    brightness = np.bincount(assigned, intensities[:, 0], k) / np.maximum(np.bincount(assigned, minlength=k), 1)
    rank = np.empty(k, np.int64)
    rank[np.argsort(brightness, kind="stable")] = np.arange(1, k + 1)
    labels[foreground] = rank[assigned]
    return labels


def elbow(volumes: Sequence[Volume], foregrounds: Sequence[Mask], *, largest: int = 8) -> tuple[float, ...]:
    """Within-cluster sum of squares of these scans' intensities for k = 1 to `largest`; choose k where the curve bends.

    A diagnostic only: k is a setting, so that the preparation of a scan does not depend on the rest of its cohort.
    """
    share = MOST_POINTS // max(len(volumes), 1)
    samples = [
        _sample(_intensities(volume, foreground), share)
        for volume, foreground in zip(volumes, foregrounds, strict=True)
    ]
    with threadpool_limits(limits=1, user_api="openmp"):
        return tuple(float(_kmeans(k).fit(np.concatenate(samples)).inertia_) for k in range(1, largest + 1))


def clustered_channel(image: Volume, modalities: Sequence[str]) -> Volume:
    """(S, H, W), the channel of (S, C, H, W) that k-means clusters: the first of `LESION_BRIGHT`, else their mean.

    A mean over MRI sequences is a poor measure of brightness: where FLAIR is bright, T1 is dark.
    """
    for name in LESION_BRIGHT:
        if name in modalities:
            return image[:, modalities.index(name)]
    return np.asarray(image.mean(axis=1))


def _intensities(volume: Volume, foreground: Mask) -> Points:
    """(N, 1) intensities of the N foreground pixels."""
    return volume[foreground].astype(np.float64)[:, None]


def _kmeans(k: int) -> KMeans:
    from sklearn.cluster import KMeans  # its import takes a second, and only DL-GAN-CNN needs it

    return KMeans(k, init="k-means++", n_init=STARTS, random_state=SEED)


def _sample(points: Points, limit: int) -> Points:
    """At most `limit` of the points, the same ones in every call."""
    if len(points) <= limit:
        return points
    return points[np.random.default_rng(SEED).choice(len(points), limit, replace=False)]

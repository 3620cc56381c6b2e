"""The memorisation audit: for each synthetic image its nearest training image, and whether that is too near.

A generator that repeats its training images leaks patients, and augmentation by copies adds nothing. The yardstick is
how far each training image is from its nearest one of another patient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import computed_field
from sklearn.metrics import pairwise_distances_chunked

from ganseg_dist.errors import DataError
from ganseg_dist.metrics.synthesis import CHUNK_MB, Features, Images
from ganseg_dist.records import Record
from ganseg_dist.sampling import evenly_spaced
from ganseg_dist.synthesis.encoder import Encoder, features

MOST_REFERENCES = 1000
"""Training images whose neighbours are the yardstick: all against all would take hours on large cohorts."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What counts as memorised, and how much of it is rejected."""

    percentile: float = 1.0
    """At or below this percentile of the training images' own distances an image is memorised.

    An independent image is there with about this chance, in percent: the audit's share of false alarms."""
    fraction: float = 0.2
    """So is one nearer to its nearest training image than this fraction of that image's own distance.

    It finds near copies where the training images are too few for a percentile (99 for the first), or where a few
    nearly empty slices, all alike, are the lowest percentiles."""
    share: float = 0.1
    """A set of images of which more than this share is memorised is rejected.

    Real slices of patients that were held out had 0.01 to 0.06, over both spaces, with ten or so training patients."""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """The nearest training image, in one space."""

    index: int
    """Of the training image."""
    distance: float
    """Euclidean."""
    percentile: float
    """In (0, 100]: where the distance stands among the training images' own, itself counted among them."""
    memorised: bool


@dataclass(frozen=True, slots=True)
class AuditedImage:
    """One synthetic image."""

    pixels: Neighbour
    encoder: Neighbour | None
    """By the encoder's features; None where none was given."""

    @property
    def memorised(self) -> bool:
        """Whether it is memorised in either space."""
        return self.pixels.memorised or (self.encoder is not None and self.encoder.memorised)


class Audit(Record):
    """audit.json: the audit of a set of synthetic images."""

    images: tuple[AuditedImage, ...]
    n_training: int
    limits: Limits

    @computed_field  # type: ignore[prop-decorator]
    @property
    def n(self) -> int:
        """Number of synthetic images."""
        return len(self.images)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def memorised(self) -> tuple[int, ...]:
        """Indices of the synthetic images that repeat a training image."""
        return tuple(index for index, image in enumerate(self.images) if image.memorised)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def share(self) -> float:
        """Share of the synthetic images that is memorised, [0, 1]."""
        return len(self.memorised) / len(self.images)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def median_percentile(self) -> float:
        """By pixels, (0, 100]. Images of the training images' own distribution are near 50; worse ones lie farther."""
        return float(np.median([image.pixels.percentile for image in self.images]))

    @computed_field(alias="refused")  # type: ignore[prop-decorator]
    @property
    def rejected(self) -> bool:
        """Whether the share is above the bound."""
        return self.share > self.limits.share


def audit(
    synthetic: Images,
    training: Images,
    *,
    patients: Sequence[str] | None = None,
    encoder: Encoder | None = None,
    limits: Limits | None = None,
) -> Audit:
    """Look for synthetic images (N, C, H, W) among training images (M, C, H, W), on pixels and on features.

    A training image's own distance is that to its nearest other one, of another patient where patients are known:
    neighbouring slices of one head are no yardstick for independence. Where training flips its images, give their
    flipped copies as well, or a flipped copy is missed.

    Raises DataError when there are no synthetic images, shapes differ, values are not finite, or no training image
    has another to be compared with.
    """
    limits = limits or Limits()
    owners = np.arange(len(training)) if patients is None else np.asarray(patients)
    _check_images(synthetic, training, owners)
    flat_synthetic, flat_training = (images.reshape(len(images), -1) for images in (synthetic, training))
    by_pixels = _neighbours(flat_synthetic, flat_training, owners, limits)
    by_encoder: Sequence[Neighbour | None] = [None] * len(synthetic)
    if encoder is not None:
        by_encoder = _neighbours(features(encoder, synthetic), features(encoder, training), owners, limits)
    images = tuple(AuditedImage(*both) for both in zip(by_pixels, by_encoder, strict=True))
    return Audit(images=images, n_training=len(training), limits=limits)


def _neighbours(
    synthetic: Features, training: Features, owners: npt.NDArray[Any], limits: Limits
) -> tuple[Neighbour, ...]:
    synthetic, training = np.asarray(synthetic, np.float32), np.asarray(training, np.float32)
    nearest, distance = _nearest(synthetic, training)
    references = evenly_spaced(len(training), MOST_REFERENCES)
    # The nearest images' own distances are needed too: the fraction is of those.
    compared, place = np.unique(np.concatenate([references, nearest]), return_inverse=True)
    _, own_of_compared = _nearest(training[compared], training, excluded=owners[compared][:, None] == owners)
    own, own_of_nearest = np.split(own_of_compared[place], [len(references)])
    # As a conformal p-value: an image that could be one of the training images is at or below p percent with a
    # chance of p percent, however few they are.
    percentile = 100 * (1 + np.searchsorted(np.sort(own), distance, side="right")) / (1 + len(own))
    memorised = (distance == 0) | (percentile <= limits.percentile) | (distance < limits.fraction * own_of_nearest)
    return tuple(
        Neighbour(int(index), float(far), float(rank), bool(copied))
        for index, far, rank, copied in zip(nearest, distance, percentile, memorised, strict=True)
    )


def _nearest(
    images: Features, among: Features, excluded: npt.NDArray[np.bool_] | None = None
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """Index and distance (N,) of the nearest of (M, D) to each of (N, D), leaving out those `excluded` (N, M)."""

    def closest(distances: npt.NDArray[np.floating], start: int) -> npt.NDArray[np.intp]:
        if excluded is not None:
            distances[excluded[start : start + len(distances)]] = np.inf
        nearest: npt.NDArray[np.intp] = distances.argmin(axis=1)
        return nearest

    index = np.concatenate(
        list(pairwise_distances_chunked(images, among, reduce_func=closest, working_memory=CHUNK_MB))
    )
    # |x|^2 - 2 x'y + |y|^2, by which they were ranked, is not exactly 0 for equal images.
    distance = [
        float(np.linalg.norm(image.astype(np.float64) - among[near])) for image, near in zip(images, index, strict=True)
    ]
    return index, np.array(distance)


def _check_images(synthetic: Images, training: Images, owners: npt.NDArray[Any]) -> None:
    if synthetic.ndim != 4 or synthetic.shape[1:] != training.shape[1:] or not len(synthetic):
        raise DataError(
            f"audit: synthetic images {synthetic.shape} beside training images {training.shape}; "
            "give (N, C, H, W) and (M, C, H, W)"
        )
    if len(owners) != len(training):
        raise DataError(f"audit: {len(owners)} patients for {len(training)} training images; name each image's patient")
    if len(np.unique(owners)) < 2:
        raise DataError("audit: the training images are of one patient; give two at least, to be compared")
    if not (np.isfinite(synthetic).all() and np.isfinite(training).all()):
        raise DataError("audit: images with intensities that are not finite; check the generator")

"""quality.json beside synthetic images: how near they are to their generator's training images."""

from __future__ import annotations

from dataclasses import dataclass

from ganseg_dist.metrics.statistics import Interval
from ganseg_dist.metrics.synthesis import Diversity, FrechetDistance, KernelDistance
from ganseg_dist.records import Record

Distances = dict[str, FrechetDistance | KernelDistance]
"""The Frechet, then the kernel distance, each by its name with its encoder."""


@dataclass(frozen=True, slots=True)
class Floor:
    """Held-out real images that were measured as the synthetic ones are."""

    n: int
    patients: int
    left_out: str | None
    """Why none were measured; None where some were."""


class Quality(Record):
    """One set of synthetic images beside real ones."""

    n_synthetic: int
    n_real: int
    """Training images that they are compared with."""
    distances: dict[str, Distances] | None
    """Of the synthetic images, the floor and the controls from the training images, by name; None, like the next two,
    where images of either kind are too few."""
    held_out: Floor | None
    diversity: Diversity | None

    @property
    def floor_has_fewer(self) -> bool:
        """Whether fewer held-out images than synthetic ones were measured."""
        floor, diversity = self.held_out, self.diversity
        return floor is not None and diversity is not None and not floor.left_out and floor.n < diversity.n_synthetic


class FromMasksQuality(Quality):
    """quality.json of images made from masks."""

    median_percentile: float
    """`Audit.median_percentile`, in (0, 100]."""
    flipped: bool
    """Whether the training images were compared with their flipped copies too."""
    ssim: Interval
    """With the real image of each one's mask, in [-1, 1], over patients."""


@dataclass(frozen=True, slots=True)
class Share:
    """Images that a judge classifies correctly."""

    accuracy: float | None
    """Share of n, in [0, 1]; None of none."""
    n: int


@dataclass(frozen=True, slots=True)
class JudgedImages(Share):
    """The share of all, and of each class."""

    classes: dict[str, Share]


class Judgement(Record):
    """A judge's accuracy on generated images and on held-out real ones."""

    left_out: str | None = None
    """Why there is no judgement; the other fields are then None."""
    run: str | None = None
    """The judge's."""
    generated: JudgedImages | None = None
    held_out: JudgedImages | None = None


class FromClassesQuality(Record):
    """quality.json of images made for classes."""

    median_percentile: float
    """`Audit.median_percentile`, in (0, 100]."""
    flipped: bool
    """Whether the training images were compared with their flipped copies too."""
    classes: dict[str, Quality]
    judge: Judgement

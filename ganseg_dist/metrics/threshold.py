"""The segmentation threshold of the best mean Dice, found in one pass that keeps counts and no volumes."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ganseg_dist.errors import DataError
from ganseg_dist.metrics.masks import Mask

Probabilities = npt.NDArray[np.floating]
Counts = npt.NDArray[np.int64]

THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))
"""0.05, 0.10 .. 0.95."""


@dataclass(frozen=True, slots=True)
class BestThreshold:
    """The threshold of the highest mean Dice, that Dice and how many cases it rests on."""

    threshold: float
    dice: float
    n: int


@dataclass(slots=True)
class ThresholdScan:
    """Counts of probabilities between neighbouring thresholds, for each case of one region.

    The rule is "lesion if probability >= threshold".
    """

    thresholds: tuple[float, ...] = THRESHOLDS
    """Ascending, each inside (0, 1)."""
    _counts: dict[str, Counts] = field(default_factory=dict, init=False, repr=False)
    """Case to (2, K + 1): background and lesion voxels that pass exactly the k lowest thresholds."""

    def __post_init__(self) -> None:
        grid = np.asarray(self.thresholds)
        if not len(grid) or (np.diff(grid) <= 0).any() or grid[0] <= 0 or grid[-1] >= 1:
            raise DataError(f"thresholds: {self.thresholds}; give ascending values between 0 and 1")

    def add(self, case: str, probabilities: Probabilities, truth: Mask) -> None:
        """Count a case's voxels, of any shape; a case may come in several parts, slice by slice.

        Raises DataError when shapes differ, the truth is not boolean or a probability lies outside [0, 1].
        """
        if truth.dtype != np.bool_ or truth.shape != probabilities.shape:
            raise DataError(
                f"{case}: probabilities {probabilities.shape} beside a {truth.dtype} truth {truth.shape}; "
                "give a boolean truth of the same shape"
            )
        # Written so that NaN fails too.
        if truth.size and not (probabilities.min() >= 0 and probabilities.max() <= 1):
            raise DataError(f"{case}: probabilities outside [0, 1]; apply the sigmoid first")
        counts = self._counts.setdefault(case, np.zeros((2, len(self.thresholds) + 1), np.int64))
        # Compared in the probabilities' own precision, as `probabilities >= threshold` is.
        grid = np.asarray(self.thresholds, probabilities.dtype)
        for row, chosen in zip(counts, (~truth, truth), strict=True):
            passed = np.searchsorted(grid, probabilities[chosen], side="right")
            row += np.bincount(passed, minlength=len(row))

    @property
    def has_lesion(self) -> npt.NDArray[np.bool_]:
        """(N,) of every case, in the order they came."""
        return np.array([counts[1].sum() > 0 for counts in self._counts.values()], bool)

    def dice(self) -> npt.NDArray[np.float64]:
        """(N, K): Dice of every case, in the order they came, at every threshold. Both empty 1, one empty 0."""
        if not self._counts:
            raise DataError("threshold scan: no case was added; add at least one")
        counts = np.stack(list(self._counts.values()))
        # Voxels at or above threshold k are those that pass more than k of them.
        predicted = counts[..., ::-1].cumsum(axis=-1)[..., ::-1][..., 1:]
        false_positives, true_positives = predicted[:, 0], predicted[:, 1]
        lesion = counts[:, 1].sum(axis=-1, keepdims=True)
        total = true_positives + false_positives + lesion
        return np.where(total > 0, 2 * true_positives / np.maximum(total, 1), 1.0)

    def best(self) -> BestThreshold:
        """The threshold of the highest mean Dice; of equals, the one nearest to 0.5.

        Over the cases that have the lesion, as far as there are any: where it is absent a single false voxel
        turns Dice from 1 to 0, and with few cases that would decide.
        """
        dice, has_lesion = self.dice(), self.has_lesion
        counted = dice[has_lesion] if has_lesion.any() else dice
        means = counted.mean(axis=0)
        equals = np.flatnonzero(means == means.max())
        chosen = min(equals, key=lambda k: abs(self.thresholds[k] - 0.5))
        return BestThreshold(self.thresholds[chosen], float(means[chosen]), len(counted))

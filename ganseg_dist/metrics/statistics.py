"""How sure a mean is, and a difference between two arms: subjects are what is resampled and paired."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import wilcoxon

from ganseg_dist.errors import DataError

RESAMPLES = 10_000
FEWEST_FOR_WILCOXON = 6
"""With five pairs the smallest two-sided p is 2/2^5 = 0.06: the test could not speak at the 5% level."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean, its 95% interval and how many subjects it rests on."""

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class PairedComparison:
    """The difference between two arms over the same subjects."""

    difference: Interval
    """First arm less second; `difference.n` is the number of pairs."""
    p_value: float | None
    """Wilcoxon signed-rank, two-sided; None with fewer than six subjects whose values differ."""

    @property
    def differs(self) -> bool:
        """Whether the interval excludes 0. A difference inside its interval is reported as none."""
        return self.difference.low > 0 or self.difference.high < 0


def bootstrap_mean(values: Sequence[float], subjects: Sequence[str] | None = None, *, seed: int = 0) -> Interval:
    """Mean of the values with its 95% percentile interval from 10 000 seeded resamples of the subjects.

    `subjects` names each value's subject where some have several (sessions, slices): a subject is then drawn
    with all its values, and n counts subjects. One subject gives the interval [mean, mean] with n = 1.

    Raises DataError when there are no values, one is not finite or the lengths differ.
    """
    scores = _finite(values)
    owners = np.arange(len(scores)) if subjects is None else np.asarray(subjects)
    if len(owners) != len(scores):
        raise DataError(f"subjects: {len(owners)} names for {len(scores)} values; name each value's subject")
    _, owner = np.unique(owners, return_inverse=True)
    sums, counts = np.bincount(owner, weights=scores), np.bincount(owner)
    n = len(counts)
    rng = np.random.default_rng(seed)
    means = np.empty(RESAMPLES)
    # A thousand resamples at a time keep the draws of some thousand subjects within a few tens of MB.
    for block in np.split(means, RESAMPLES // 1000):
        drawn = rng.integers(n, size=(len(block), n))
        block[:] = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.percentile(means, (2.5, 97.5))
    return Interval(mean=float(scores.mean()), low=float(low), high=float(high), n=n)


def compare_paired(first: Mapping[str, float], second: Mapping[str, float], *, seed: int = 0) -> PairedComparison:
    """Compare two arms over the same subjects: bootstrap of the mean difference, and Wilcoxon's signed-rank p.

    Each arm maps a subject to its one value (average cases and seeds of a subject first).

    Raises DataError when the arms have different subjects, none, or a value that is not finite.
    """
    unpaired = sorted(first.keys() ^ second.keys())
    if unpaired:
        raise DataError(
            f"{unpaired[0]}: is in one arm only ({len(unpaired)} such subjects); compare arms over the same"
        )
    differences = _finite([first[subject] - second[subject] for subject in sorted(first)])
    changed = differences[differences != 0]
    p_value = float(wilcoxon(changed).pvalue) if len(changed) >= FEWEST_FOR_WILCOXON else None
    return PairedComparison(bootstrap_mean(differences.tolist(), seed=seed), p_value)


def _finite(values: Sequence[float]) -> npt.NDArray[np.float64]:
    scores = np.asarray(values, np.float64)
    if scores.ndim != 1 or not len(scores):
        raise DataError(f"values: shape {scores.shape}; give a list of at least one value")
    if not np.isfinite(scores).all():
        raise DataError(
            f"values: {np.count_nonzero(~np.isfinite(scores))} of {len(scores)} are not finite; score them again"
        )
    return scores

"""Confidence intervals of a mean, and tests of a difference between two arms, over few subjects.

Percentile bootstraps declare one null difference in five at n = 4, and one in eight at n = 6. The methods here keep to
6% from n = 6 on, for skewed and for heavy-tailed differences too: `python -m verification.false_alarms`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit
from scipy.stats import ttest_1samp, wilcoxon

from ganseg_dist.errors import DataError

Values = npt.NDArray[np.float64]
Bounds = tuple[float, float]

LEVEL = 0.05
"""Two-sided level of tests; intervals have a coverage of 1 - LEVEL."""
FEWEST_FOR_VERDICT = 6
"""With five pairs the smallest two-sided p of sign flips and of Wilcoxon is 2/2^5 = 0.06: no test can reject."""
MOST_FOR_ALL_SIGNS = 13
FLIPS, FLIPS_AT_ONCE = 10_000, 1000
UNBOUNDED: Bounds = (-math.inf, math.inf)


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean, its 95% interval and the number of its subjects.

    For one subject, and for equal values, both ends are the mean.
    """

    mean: float
    low: float
    high: float
    n: int

    @property
    def known(self) -> bool:
        """Whether the interval has a width: with one subject, or with equal values, it has none."""
        return self.low < self.high


@dataclass(frozen=True, slots=True)
class PairedComparison:
    """The difference between two arms over the same subjects."""

    difference: Interval
    """First arm less second; `difference.n` is the number of pairs."""
    differs: bool | None
    """Whether the interval excludes 0 and the sign flips agree (p <= 0.05); None with too few subjects."""
    p_t: float | None = None
    """Paired t, two-sided; None where all differences are equal, and for several seeds."""
    p_sign_flip: float | None = None
    """Test of the mean over sign flips of the differences, two-sided; None for one subject."""
    p_wilcoxon: float | None = None
    """Signed ranks, two-sided; None with fewer than six subjects whose values differ."""


def mean_interval(
    values: Sequence[float], subjects: Sequence[str] | None = None, *, bounds: Bounds = UNBOUNDED
) -> Interval:
    """Mean of the values with the interval of `interval_of`.

    Args:
        subjects: each value's subject, where some have several values (sessions, slices): n counts subjects, and the
            mean, over all values, weighs a subject by its number of values.
        bounds: least and largest possible mean.

    Raises DataError when there are no values, one is not finite or the lengths differ.
    """
    scores = _finite(values)
    owners = np.arange(len(scores)) if subjects is None else np.asarray(subjects)
    if len(owners) != len(scores):
        raise DataError(f"subjects: {len(owners)} names for {len(scores)} values; name each value's subject")
    return interval_of(pseudo_values(scores, owners), bounds=bounds)


def pseudo_values(scores: Values, subjects: npt.NDArray[np.generic]) -> Values:
    """(1, P), one value per subject, whose mean is that of all scores and whose spread is that of the ratio of sums.

    With a subject's sum y_p and count c_p: m + (y_p - m c_p) / mean(c), m = sum y / sum c (Cochran, Sampling
    techniques, 1977, section 6.4).
    """
    _, owner = np.unique(subjects, return_inverse=True)
    sums, counts = np.bincount(owner, weights=scores), np.bincount(owner)
    mean = sums.sum() / counts.sum()
    return np.asarray(mean + (sums - mean * counts) / counts.mean())[None]


def interval_of(values: Values, *, bounds: Bounds = UNBOUNDED) -> Interval:
    """The mean m of (S, P) values, one per seed and subject, with a 95% interval that keeps its level at small P.

    For one seed it is the hull of Student's, m +- t e, and of Hall's, which solves

        t = g(T),  g(T) = T + a T^2 / 3 + a^2 T^3 / 27 + a / 6,  T = (m - mu) / e,  a = skewness / sqrt(P)

    for mu at both ends (Hall, On the removal of skewness by transformation, J. R. Stat. Soc. B 54, 1992), with
    e = s / sqrt(P) and the skewness sqrt(P (P - 1)) / (P - 2) m_3 / m_2^1.5 of central moments. Student's alone is too
    short for skewed values, Hall's for heavy tails.

    For several seeds, both subjects and seeds are random samples: to the square of each half is added that of the
    seeds, t_(S-1)^2 max(MS_s - MS_r, 0) / (S P), with the mean squares of seeds and of residuals
    (Graybill and Wang, Confidence intervals on nonnegative linear combinations of variances, J. Am. Stat. Assoc. 75,
    1980). Two seeds are too few to estimate how seeds differ; use three.
    """
    seeds, n = values.shape
    subject_means = values.mean(axis=0)
    mean = float(subject_means.mean())
    if n == 1:
        return Interval(mean, mean, mean, n)
    error = float(subject_means.std(ddof=1)) / math.sqrt(n)
    below = above = _seeds_half(values) if seeds > 1 else 0.0
    if error > abs(mean) * 1e-12:  # values are not equal up to rounding
        t = float(stdtrit(n - 1, 1 - LEVEL / 2))
        a = _skewness(subject_means) / math.sqrt(n)
        below = math.hypot(below, error * max(t, _hall_inverse(t, a)))
        above = math.hypot(above, error * max(t, -_hall_inverse(-t, a)))
    return Interval(mean, min(max(mean - below, bounds[0]), mean), max(min(mean + above, bounds[1]), mean), n)


def compare_paired(first: Mapping[str, float], second: Mapping[str, float]) -> PairedComparison:
    """Compare two arms over the same subjects.

    Each arm maps a subject to one value: average a subject's cases first.

    Raises DataError when the arms have different subjects, none, or a value that is not finite.
    """
    unpaired = sorted(first.keys() ^ second.keys())
    if unpaired:
        raise DataError(
            f"{unpaired[0]}: is in one arm only ({len(unpaired)} such subjects); compare arms over the same"
        )
    return compare(_finite([first[subject] - second[subject] for subject in sorted(first)])[None])


def compare(differences: Values) -> PairedComparison:
    """Test whether (S, P) differences, one per seed and subject, are 0 on average over populations of both."""
    difference = interval_of(differences)
    seeds, n = differences.shape
    if n == 1:
        return PairedComparison(difference, None)
    subject_means = differences.mean(axis=0)
    p_sign_flip = float(sign_flips(subject_means))
    excluded = difference.low > 0 or difference.high < 0
    changed = subject_means[subject_means != 0]
    return PairedComparison(
        difference,
        differs=excluded and p_sign_flip <= LEVEL if n >= FEWEST_FOR_VERDICT else None,
        p_t=float(ttest_1samp(subject_means, 0).pvalue) if seeds == 1 and np.ptp(subject_means) > 0 else None,
        p_sign_flip=p_sign_flip,
        p_wilcoxon=float(wilcoxon(changed).pvalue) if len(changed) >= FEWEST_FOR_VERDICT else None,
    )


def sign_flips(differences: Values) -> Values:
    """Two-sided p (...) that the mean of (..., P) differences is 0, over flips of their signs: all 2^P up to P = 13,
    beyond that FLIPS random ones, which include the identity.

    Equal to `scipy.stats.permutation_test` for paired samples, and many times faster, because tables need many.
    """
    observed = np.abs(differences.sum(axis=-1, keepdims=True))
    # Rounding must not separate equal sums.
    observed = observed - 1e-12 * np.abs(differences).sum(axis=-1, keepdims=True)
    as_large = [np.abs(differences @ signs.T) >= observed for signs in _signs(differences.shape[-1])]
    return np.asarray(np.concatenate(as_large, axis=-1).mean(axis=-1))


def _signs(n: int) -> Iterator[Values]:
    """(K, n) of -1 and 1, in blocks; the first row changes nothing."""
    if n <= MOST_FOR_ALL_SIGNS:
        yield np.asarray(1 - 2 * (np.arange(2**n)[:, None] >> np.arange(n) & 1), np.float64)
        return
    rng = np.random.default_rng(0)
    for block in range(FLIPS // FLIPS_AT_ONCE):
        flipped = rng.integers(2, size=(FLIPS_AT_ONCE, n), dtype=np.int8)
        flipped[0] *= block > 0
        yield np.asarray(1 - 2 * flipped, np.float64)


def _seeds_half(values: Values) -> float:
    """The seeds' part of an interval's half, see `interval_of`: 0 where seeds differ no more than by chance."""
    seeds, subjects = values.shape
    seed_means = values.mean(axis=1, keepdims=True)
    residuals = values - values.mean(axis=0) - seed_means + values.mean()
    residual = float((residuals**2).sum()) / ((seeds - 1) * (subjects - 1))
    excess = max(subjects * float(seed_means.var(ddof=1)) - residual, 0.0)
    return float(stdtrit(seeds - 1, 1 - LEVEL / 2)) * math.sqrt(excess / values.size)


def _skewness(values: Values) -> float:
    """Sample skewness, bias-corrected as in `interval_of`; 0 for fewer than three values."""
    n, deviations = len(values), values - values.mean()
    if n < 3:
        return 0.0
    moments = np.mean(deviations**3) / np.mean(deviations**2) ** 1.5
    return math.sqrt(n * (n - 1)) / (n - 2) * float(moments)


def _hall_inverse(y: float, a: float) -> float:
    """The T of g(T) = y, see `interval_of`; g is a monotonic cubic.

    T stops where g is flat, T = -3 / a: beyond, a single outlier would stretch the interval without bound.
    """
    return y if abs(a) < 1e-9 else 3 / a * (math.cbrt(max(1 + a * (y - a / 6), 0.0)) - 1)


def _finite(values: Sequence[float]) -> Values:
    scores = np.asarray(values, np.float64)
    if scores.ndim != 1 or not len(scores):
        raise DataError(f"values: shape {scores.shape}; give a list of at least one value")
    if not np.isfinite(scores).all():
        raise DataError(
            f"values: {np.count_nonzero(~np.isfinite(scores))} of {len(scores)} are not finite; score them again"
        )
    return scores

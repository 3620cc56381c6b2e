"""How often a difference is declared where there is none, and where there is one.

    python -m verification.false_alarms [--repeats 2000]

Patients' differences are drawn with a mean of 0, or of one standard deviation, and compared as every table here
compares them; beside it stand a percentile bootstrap, paired t, sign flips and Wilcoxon by themselves.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from ganseg_dist.metrics.statistics import LEVEL, interval_of, sign_flips

Values = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Sampler = Callable[[np.random.Generator, tuple[int, ...]], Values]

DIFFERENCES: Mapping[str, Sampler] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "skewed (exponential)": lambda rng, shape: rng.exponential(size=shape) - 1,
    "heavy-tailed (t, 3 degrees of freedom)": lambda rng, shape: rng.standard_t(3, shape) / np.sqrt(3),
    "half of them 0": lambda rng, shape: np.sqrt(2) * rng.normal(size=shape) * (rng.random(shape) < 0.5),
    "very skewed (log-normal, sigma 1)": lambda rng, shape: (
        (rng.lognormal(size=shape) - np.exp(0.5)) / np.sqrt((np.e - 1) * np.e)
    ),
}
"""Samplers of differences, all with mean 0 and variance 1."""
HELD = ("normal", "skewed (exponential)", "heavy-tailed (t, 3 degrees of freedom)")
"""Distributions for which at most 6% false alarms are allowed."""
PATIENTS = (4, 6, 8, 12, 20, 40)
RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Rates:
    """Shares of the repetitions in which a difference was declared."""

    ours: float
    bootstrap: float
    t: float
    sign_flip: float
    wilcoxon: float


def verdicts(differences: Values) -> Flags:
    """Whether `compare` declares a difference, for (K, P) sets of differences; sign flips are sampled once for all."""
    return excludes_0(differences[:, None]) & (sign_flips(differences) <= LEVEL)


def excludes_0(values: Values) -> Flags:
    """(K,) whether the interval of each of (K, S, P) sets excludes 0."""
    intervals = map(interval_of, values)
    return np.array([interval.low > 0 or interval.high < 0 for interval in intervals])


def sample_differences(sampler: Sampler, patients: int, *, shift: float, repeats: int) -> Values:
    """(K, P) differences with mean `shift`; the same in every call."""
    return sampler(np.random.default_rng([0, patients]), (repeats, patients)) + shift


def false_alarms(differences: Values) -> Rates:
    """The rates of false alarms on (K, P) sets whose mean is 0."""
    rng = np.random.default_rng(0)
    n = differences.shape[1]
    bootstrap = []
    for sample in differences:
        means = sample[rng.integers(n, size=(RESAMPLES, n))].mean(axis=1)
        low, high = np.percentile(means, (2.5, 97.5))
        bootstrap.append(low > 0 or high < 0)
    t = stats.ttest_1samp(differences, 0, axis=1).pvalue <= LEVEL
    changed = [sample[sample != 0] for sample in differences]
    ranks = [len(sample) > 0 and stats.wilcoxon(sample).pvalue <= LEVEL for sample in changed]
    declared = (verdicts(differences), bootstrap, t, sign_flips(differences) <= LEVEL, ranks)
    return Rates(*(float(np.mean(alarms)) for alarms in declared))


def alarms_over_seeds(patients: int, seeds: int, *, repeats: int) -> tuple[float, float]:
    """Shares of intervals that exclude 0 where seeds differ by as much as patients do: ours, and those of means over
    the seeds, as if there were no others.
    """
    rng = np.random.default_rng([1, patients, seeds])
    parts = (rng.normal(size=(repeats, *shape)) for shape in ((1, patients), (seeds, 1), (seeds, patients)))
    values = np.asarray(sum(parts))
    return float(excludes_0(values).mean()), float(excludes_0(values.mean(axis=1, keepdims=True)).mean())


def table(repeats: int, patients: Sequence[int] = PATIENTS) -> str:
    """A Markdown table with one row per distribution and n."""
    lines = [
        "| differences | n | ours | bootstrap | paired t | sign flips | Wilcoxon | ours, of a mean of 1 SD |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, sampler in DIFFERENCES.items():
        for n in patients:
            rates = false_alarms(sample_differences(sampler, n, shift=0.0, repeats=repeats))
            power = float(verdicts(sample_differences(sampler, n, shift=1.0, repeats=repeats)).mean())
            alarms = (rates.ours, rates.bootstrap, rates.t, rates.sign_flip, rates.wilcoxon)
            cells = [f"{100 * rate:.1f}%" for rate in (*alarms, power)]
            if n < min(PATIENTS[1:]):
                cells[0] = cells[-1] = "no verdict"
            lines.append(f"| {name} | {n} | {' | '.join(cells)} |")
    return "\n".join(lines)


def seed_table(repeats: int) -> str:
    """A Markdown table for several seeds, treated as a random sample and not."""
    lines = ["| patients | seeds | ours | over means of the seeds |", "|---|---|---|---|"]
    for n, seeds in ((8, 2), (8, 3), (20, 2), (20, 5)):
        ours, over_means = alarms_over_seeds(n, seeds, repeats=repeats)
        lines.append(f"| {n} | {seeds} | {100 * ours:.1f}% | {100 * over_means:.1f}% |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print both tables."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--repeats", type=int, default=2000, help="sets of differences a cell (2000)")
    repeats = options.parse_args(arguments).repeats
    print(f"False alarms at 5%, and power; {repeats} sets a cell\n")
    print(table(repeats))
    print(f"\nFalse alarms where seeds differ as much as patients; {repeats} sets a cell\n")
    print(seed_table(repeats))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

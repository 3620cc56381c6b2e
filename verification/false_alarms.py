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
Draw = Callable[[np.random.Generator, tuple[int, ...]], Values]

DIFFERENCES: Mapping[str, Draw] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "skewed (exponential)": lambda rng, shape: rng.exponential(size=shape) - 1,
    "heavy-tailed (t, 3 degrees of freedom)": lambda rng, shape: rng.standard_t(3, shape) / np.sqrt(3),
    "half of them 0": lambda rng, shape: np.sqrt(2) * rng.normal(size=shape) * (rng.random(shape) < 0.5),
    "very skewed (log-normal, sigma 1)": lambda rng, shape: (
        (rng.lognormal(size=shape) - np.exp(0.5)) / np.sqrt((np.e - 1) * np.e)
    ),
}
"""All of mean 0 and variance 1."""
HELD = ("normal", "skewed (exponential)", "heavy-tailed (t, 3 degrees of freedom)")
"""Of which at most 6% may be false alarms."""
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
    """What `compare` calls a difference, of (K, P) sets of differences at once: sign flips are drawn once for all."""
    return excludes_0(differences[:, None]) & (sign_flips(differences) <= LEVEL)


def excludes_0(values: Values) -> Flags:
    """Whether the interval of each of (K, S, P) sets leaves 0 out."""
    intervals = map(interval_of, values)
    return np.array([interval.low > 0 or interval.high < 0 for interval in intervals])


def drawn(draw: Draw, patients: int, *, shift: float, repeats: int) -> Values:
    """(K, P) differences of this mean; the same ones whenever they are asked for."""
    return draw(np.random.default_rng([0, patients]), (repeats, patients)) + shift


def false_alarms(differences: Values) -> Rates:
    """Of (K, P) sets whose mean is 0."""
    rng = np.random.default_rng(0)
    n = differences.shape[1]
    bootstrap = []
    for of_set in differences:
        means = of_set[rng.integers(n, size=(RESAMPLES, n))].mean(axis=1)
        low, high = np.percentile(means, (2.5, 97.5))
        bootstrap.append(low > 0 or high < 0)
    t = stats.ttest_1samp(differences, 0, axis=1).pvalue <= LEVEL
    changed = [of_set[of_set != 0] for of_set in differences]
    ranks = [len(of_set) > 0 and stats.wilcoxon(of_set).pvalue <= LEVEL for of_set in changed]
    declared = (verdicts(differences), bootstrap, t, sign_flips(differences) <= LEVEL, ranks)
    return Rates(*(float(np.mean(alarms)) for alarms in declared))


def alarms_over_seeds(patients: int, seeds: int, *, repeats: int) -> tuple[float, float]:
    """Intervals that leave 0 out where trainings with other seeds differ by as much as patients do: ours, and those of
    means over the seeds as if these were all.
    """
    rng = np.random.default_rng([1, patients, seeds])
    parts = (rng.normal(size=(repeats, *shape)) for shape in ((1, patients), (seeds, 1), (seeds, patients)))
    values = np.asarray(sum(parts))
    return float(excludes_0(values).mean()), float(excludes_0(values.mean(axis=1, keepdims=True)).mean())


def table(repeats: int, patients: Sequence[int] = PATIENTS) -> str:
    """Markdown: a row a distribution and n."""
    lines = [
        "| differences | n | ours | bootstrap | paired t | sign flips | Wilcoxon | ours, of a mean of 1 SD |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, draw in DIFFERENCES.items():
        for n in patients:
            none = false_alarms(drawn(draw, n, shift=0.0, repeats=repeats))
            power = float(verdicts(drawn(draw, n, shift=1.0, repeats=repeats)).mean())
            alarms = (none.ours, none.bootstrap, none.t, none.sign_flip, none.wilcoxon)
            cells = [f"{100 * rate:.1f}%" for rate in (*alarms, power)]
            if n < min(PATIENTS[1:]):
                cells[0] = cells[-1] = "no verdict"
            lines.append(f"| {name} | {n} | {' | '.join(cells)} |")
    return "\n".join(lines)


def seed_table(repeats: int) -> str:
    """Markdown: several seeds, counted as drawn and not."""
    lines = ["| patients | seeds | ours | over means of the seeds |", "|---|---|---|---|"]
    for n, seeds in ((8, 2), (8, 3), (20, 2), (20, 5)):
        ours, of_means = alarms_over_seeds(n, seeds, repeats=repeats)
        lines.append(f"| {n} | {seeds} | {100 * ours:.1f}% | {100 * of_means:.1f}% |")
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

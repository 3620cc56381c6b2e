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

from ganseg_dist.metrics.statistics import LEVEL, PairedComparison, compare

Values = npt.NDArray[np.float64]
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


def rates(draw: Draw, patients: int, *, shift: float, repeats: int, seed: int = 0) -> Rates:
    """Of `repeats` sets of differences with this mean."""
    rng = np.random.default_rng([seed, patients])
    found = [_declared(draw(rng, (patients,)) + shift, rng) for _ in range(repeats)]
    return Rates(*np.mean(found, axis=0).tolist())


def our_rate(draw: Draw, patients: int, *, shift: float, repeats: int, seed: int = 0) -> float:
    """Ours alone: the same draws whatever else is computed."""
    rng = np.random.default_rng([seed, patients])
    return float(np.mean([compare(draw(rng, (1, patients)) + shift).differs or False for _ in range(repeats)]))


def rates_over_seeds(patients: int, seeds: int, *, shift: float, repeats: int) -> tuple[float, float]:
    """Ours, and ours of means over the seeds as if these were all: trainings with other seeds differ by as much as
    patients do.
    """
    rng = np.random.default_rng([1, patients, seeds])
    ours, of_means = [], []
    for _ in range(repeats):
        drawn = rng.normal(size=(1, patients)) + rng.normal(size=(seeds, 1)) + rng.normal(size=(seeds, patients))
        ours.append(bool(compare(drawn + shift).differs))
        of_means.append(bool(compare(drawn.mean(axis=0, keepdims=True) + shift).differs))
    return float(np.mean(ours)), float(np.mean(of_means))


def _declared(differences: Values, rng: np.random.Generator) -> tuple[bool, ...]:
    found: PairedComparison = compare(differences[None])
    means = differences[rng.integers(len(differences), size=(RESAMPLES, len(differences)))].mean(axis=1)
    low, high = np.percentile(means, (2.5, 97.5))
    tests = (found.p_t, found.p_sign_flip, found.p_wilcoxon)
    return bool(found.differs), bool(low > 0 or high < 0), *(p is not None and p <= LEVEL for p in tests)


def table(repeats: int, patients: Sequence[int] = PATIENTS) -> str:
    """Markdown: a row a distribution and n."""
    lines = [
        "| differences | n | ours | bootstrap | paired t | sign flips | Wilcoxon | ours, of a mean of 1 SD |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, draw in DIFFERENCES.items():
        for n in patients:
            none = rates(draw, n, shift=0.0, repeats=repeats)
            power = our_rate(draw, n, shift=1.0, repeats=repeats)
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
        ours, of_means = rates_over_seeds(n, seeds, shift=0.0, repeats=repeats)
        lines.append(f"| {n} | {seeds} | {100 * ours:.1f}% | {100 * of_means:.1f}% |")
    return "\n".join(lines)


def main() -> int:
    """Print both tables."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--repeats", type=int, default=2000, help="sets of differences a cell (2000)")
    repeats = options.parse_args().repeats
    print(f"False alarms at 5%, and power; {repeats} sets a cell\n")
    print(table(repeats))
    print(f"\nFalse alarms where seeds differ as much as patients; {repeats} sets a cell\n")
    print(seed_table(repeats))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

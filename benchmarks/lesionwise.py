"""Lesion-wise scores of a BraTS-sized case against the plain transcription of their definition.

    python benchmarks/lesionwise.py [--repeats 3]

Both run in the same process on the same masks: the ratio of median times and the largest difference of any
score are printed for each case.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from scipy.ndimage import gaussian_filter

from ganseg_dist.metrics.lesionwise import lesionwise_scores

# The transcription is kept beside the tests, which hold the scores to it.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "metrics"))
from plain_lesionwise import plain_lesionwise

SHAPE = (240, 240, 155)
SPACING_MM = (1.0, 1.0, 1.0)


def ball(centre: tuple[int, int, int], radius: float) -> np.ndarray:
    """A ball whose surface is roughened by smoothed noise."""
    grid = np.ogrid[tuple(slice(size) for size in SHAPE)]
    distance = np.sqrt(sum((axis - middle) ** 2 for axis, middle in zip(grid, centre, strict=True)))
    return distance + ROUGHNESS < radius


def one_tumour() -> tuple[np.ndarray, np.ndarray]:
    """One large tumour, found a little off its place."""
    return ball((123, 111, 80), 29), ball((120, 110, 80), 30)


def several_lesions() -> tuple[np.ndarray, np.ndarray]:
    """A large, a middling, a missed and a small lesion, with two false positives at the far ends."""
    truth = ball((90, 100, 70), 24) | ball((150, 150, 90), 12) | ball((160, 80, 60), 8) | ball((60, 150, 100), 5)
    prediction = ball((92, 99, 71), 23) | ball((151, 148, 90), 13) | ball((61, 149, 100), 5)
    return prediction | ball((170, 180, 120), 6) | ball((60, 60, 30), 4), truth


def timed(score: Callable[[], object], repeats: int) -> tuple[float, object]:
    """Median seconds of `repeats` calls, and what the last returned."""
    seconds = []
    result: object = None
    for _ in range(repeats):
        start = time.perf_counter()
        result = score()
        seconds.append(time.perf_counter() - start)
    return median(seconds), result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="runs of each, of which the median counts")
    repeats = parser.parse_args().repeats
    for name, case in (("one tumour", one_tumour), ("several lesions", several_lesions)):
        prediction, truth = case()
        ours, scores = timed(lambda p=prediction, t=truth: lesionwise_scores(p, t, SPACING_MM), repeats)
        plain, expected = timed(lambda p=prediction, t=truth: plain_lesionwise(p, t, SPACING_MM), repeats)
        got = (scores.dice, scores.hd95, scores.sensitivity, scores.specificity)
        got += (scores.n_truth, scores.n_predicted, scores.n_missed, scores.n_false_positive)
        difference = max(abs(a - b) for a, b in zip(got, expected, strict=True))
        print(
            f"{name}: {ours:.3f} s against {plain:.2f} s, {plain / ours:.0f} times faster, "
            f"largest difference {difference:.1e} (median of {repeats}, {'x'.join(map(str, SHAPE))})"
        )


ROUGHNESS = 40 * gaussian_filter(np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32), 3)

if __name__ == "__main__":
    main()

"""Lesion-wise scores of a BraTS-sized case against the plain transcription of their definition.

    python -m benchmarks.lesionwise [--repeats 3]

Both run in the same process on the same masks, in turn; beside the ratio of their times stands the largest
difference of any score.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from benchmarks.measure import Comparison, compare_seconds, parser, report, seconds_of, side_by_side
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
    """One large tumour, predicted slightly displaced."""
    return ball((123, 111, 80), 29), ball((120, 110, 80), 30)


def several_lesions() -> tuple[np.ndarray, np.ndarray]:
    """A large, a medium, a missed and a small lesion, with two false positives far away."""
    truth = ball((90, 100, 70), 24) | ball((150, 150, 90), 12) | ball((160, 80, 60), 8) | ball((60, 150, 100), 5)
    prediction = ball((92, 99, 71), 23) | ball((151, 148, 90), 13) | ball((61, 149, 100), 5)
    return prediction | ball((170, 180, 120), 6) | ball((60, 60, 30), 4), truth


def compare(what: str, prediction: np.ndarray, truth: np.ndarray, repeats: int) -> Comparison:
    """Score one case by both, and compare their times and scores."""
    results = {}

    def timed(name: str, score: Callable[..., object]) -> float:
        def work() -> None:
            results[name] = score(prediction, truth, SPACING_MM)

        return seconds_of(work, torch.device("cpu"))

    seconds = side_by_side(
        lambda: timed("ours", lesionwise_scores), lambda: timed("plain", plain_lesionwise), repeats, warm_ups=0
    )
    scores = results["ours"]
    ours = (scores.dice, scores.hd95, scores.sensitivity, scores.specificity)
    ours += (scores.n_truth, scores.n_predicted, scores.n_missed, scores.n_false_positive)
    difference = max(abs(a - b) for a, b in zip(ours, results["plain"], strict=True))
    return compare_seconds(what, *seconds, note=f"largest difference of any score {difference:.1e}")


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--repeats", type=int, default=3, help="of each, of which the median counts")
    args = options.parse_args()
    cases = {"one tumour": one_tumour, "several lesions": several_lesions}
    if args.quick:
        args.repeats, cases = 1, {"one tumour": one_tumour}
    size = "x".join(map(str, SHAPE))
    report([compare(f"{name}, {size}", *case(), args.repeats) for name, case in cases.items()], args)


ROUGHNESS = 40 * gaussian_filter(np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32), 3)

if __name__ == "__main__":
    main()

"""The segmentation thresholds of the best mean Dice, found in one pass that keeps counts and no volumes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ganseg_dist.errors import DataError
from ganseg_dist.plural import counted

Probabilities = npt.NDArray[np.floating]
Masks = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int64]

THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))
"""0.05, 0.10 .. 0.95."""
DEFAULT = 0.5
FEWEST_PATIENTS = 10
"""On fewer, the best threshold follows single patients: three gave LGG slices one that found 98% of the test patients'
lesions and called half of the healthy slices, where validation had promised both."""


@dataclass(frozen=True, slots=True)
class BestThreshold:
    """The threshold of the highest mean Dice, that Dice and how many cases it rests on."""

    threshold: float
    dice: float
    n: int


def few_patients(patients: int) -> str | None:
    """What is doubtful of a threshold that was chosen on so few; None where nothing is, and where none was chosen."""
    if not 0 < patients < FEWEST_PATIENTS:
        return None
    of = counted(patients, "validation patient")
    return f"chosen on {of}, too few to hold on others; validate on {FEWEST_PATIENTS} or more"


@dataclass(slots=True)
class ThresholdScan:
    """How often voxels pass so many thresholds in every region, for each case.

    The rule is "lesion if probability >= threshold", and an inner region's voxels belong to the outer ones.
    """

    inside: Sequence[Sequence[int]] = ((0,),)
    """Of each region, its own row and those of the regions inside it."""
    thresholds: tuple[float, ...] = THRESHOLDS
    """Ascending, each inside (0, 1)."""
    _cases: dict[str, int] = field(default_factory=dict, init=False, repr=False)
    """Case to its number."""
    _kinds: list[tuple[int, Counts, Counts]] = field(default_factory=list, init=False, repr=False)
    """Case, kinds of voxels in it as `_codes` tells them apart, and how many there are of each."""

    def __post_init__(self) -> None:
        grid = np.asarray(self.thresholds)
        if not len(grid) or (np.diff(grid) <= 0).any() or grid[0] <= 0 or grid[-1] >= 1:
            raise DataError(f"thresholds: {self.thresholds}; give ascending values between 0 and 1")

    def add(self, case: str, probabilities: Probabilities, truth: Masks) -> None:
        """Count a case's voxels, (R, ...) each; a case may come in several parts, slice by slice.

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
        number = self._cases.setdefault(case, len(self._cases))
        codes = self._codes(probabilities, truth)
        # Background that passes no threshold is most of a scan, and counts in no Dice.
        self._kinds.append((number, *np.unique(codes[codes > 0], return_counts=True)))

    def _codes(self, probabilities: Probabilities, truth: Masks) -> Counts:
        """One number a voxel for how many thresholds it passes in each region, and in which it truly is."""
        # Compared in the probabilities' own precision, as `probabilities >= threshold` is.
        grid = np.asarray(self.thresholds, probabilities.dtype)
        codes = np.zeros(truth[0].size, np.int64)
        for values, true in zip(probabilities, truth, strict=True):
            codes = codes * len(self._steps) + np.searchsorted(grid, values.ravel(), side="right")
            codes = codes * 2 + true.ravel()
        return codes

    @property
    def _steps(self) -> range:
        """How many thresholds a voxel may pass."""
        return range(len(self.thresholds) + 1)

    def _decoded(self) -> tuple[Counts, Counts, Masks, Counts]:
        """(M,) cases, (R, M) thresholds passed, (R, M) truth and (M,) counts of all kinds of voxels."""
        if not self._cases:
            raise DataError("threshold scan: no case was added; add at least one")
        case = np.repeat([number for number, _, _ in self._kinds], [len(codes) for _, codes, _ in self._kinds])
        codes = np.concatenate([codes for _, codes, _ in self._kinds])
        passed, truth = np.zeros((2, len(self.inside), len(codes)), np.int64)
        for row in reversed(range(len(self.inside))):
            codes, truth[row] = np.divmod(codes, 2)
            codes, passed[row] = np.divmod(codes, len(self._steps))
        counts = np.concatenate([counts for _, _, counts in self._kinds])
        return case.astype(np.int64), passed, truth.astype(bool), counts

    def has_lesion(self, row: int = 0) -> npt.NDArray[np.bool_]:
        """(N,) whether each case has the region, in the order they came."""
        case, _, truth, _ = self._decoded()
        return np.bincount(case[truth[row]], minlength=len(self._cases)) > 0

    def dice(self, row: int = 0, chosen: Sequence[float | None] = ()) -> npt.NDArray[np.float64]:
        """(N, K): Dice of every case at every threshold of a region. Both empty 1, one empty 0.

        Args:
            row: the region's.
            chosen: thresholds of all regions, of which those of the regions inside this one count.
        """
        case, passed, truth, counts = self._decoded()
        given = np.zeros(len(case), bool)
        for inner in self.inside[row]:
            if inner != row:
                given |= passed[inner] >= self._needed(chosen[inner])
        true = truth[row]

        def voxels(kinds: Masks) -> npt.NDArray[np.float64]:
            return np.asarray(np.bincount(case[kinds], counts[kinds], minlength=len(self._cases)), np.float64)

        lesion = voxels(true)
        columns = []
        for needed in self._steps[1:]:
            predicted = given | (passed[row] >= needed)
            total = voxels(predicted) + lesion
            columns.append(np.where(total > 0, 2 * voxels(predicted & true) / np.maximum(total, 1), 1.0))
        return np.stack(columns, axis=1)

    def _needed(self, threshold: float | None) -> int:
        """How many thresholds a voxel must pass to be predicted at this one of them."""
        return self.thresholds.index(DEFAULT if threshold is None else threshold) + 1

    def best(self) -> tuple[BestThreshold | None, ...]:
        """Each region's threshold of the highest mean Dice; of equals, the one nearest to 0.5.

        Innermost first: the voxels of the regions inside one are predicted of it at their chosen thresholds. None for
        a region that no case has, which stays at 0.5.

        Over the cases that have the region: where it is absent a single false voxel turns Dice from 1 to 0, and with
        few cases that would decide.
        """
        found: list[BestThreshold | None] = [None] * len(self.inside)
        for row in sorted(range(len(self.inside)), key=lambda row: len(self.inside[row])):
            has_lesion = self.has_lesion(row)
            if not has_lesion.any():
                continue
            dice = self.dice(row, [None if one is None else one.threshold for one in found])
            means = dice[has_lesion].mean(axis=0)
            equals = np.flatnonzero(means == means.max())
            chosen = min(equals, key=lambda k: abs(self.thresholds[k] - DEFAULT))
            found[row] = BestThreshold(self.thresholds[chosen], float(means[chosen]), int(has_lesion.sum()))
        return tuple(found)

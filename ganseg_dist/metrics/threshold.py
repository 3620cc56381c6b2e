"""The segmentation thresholds of the best mean Dice, from one pass that keeps counts and no volumes."""

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
"""With fewer, single patients determine the best threshold: one chosen on three patients' LGG slices found 98% of the
test patients' lesions but flagged half of the healthy slices, which validation did not show."""


@dataclass(frozen=True, slots=True)
class BestThreshold:
    """The threshold of the highest mean Dice, that Dice and the number of cases."""

    threshold: float
    dice: float
    n: int


def few_patients_warning(patients: int) -> str | None:
    """A warning of a threshold chosen on too few patients; None for enough patients, and for 0 (not calibrated)."""
    if not 0 < patients < FEWEST_PATIENTS:
        return None
    patients_text = counted(patients, "validation patient")
    return f"chosen on {patients_text}, too few to hold on others; validate on {FEWEST_PATIENTS} or more"


@dataclass(slots=True)
class ThresholdScan:
    """Counts of voxels by the number of thresholds that they pass in each region, for each case.

    The rule is "lesion if probability >= threshold", and an inner region's voxels belong to the outer ones.
    """

    inside: Sequence[Sequence[int]] = ((0,),)
    """For each region, its own row and those of the regions inside it."""
    thresholds: tuple[float, ...] = THRESHOLDS
    """Ascending, each inside (0, 1)."""
    _cases: dict[str, int] = field(default_factory=dict, init=False, repr=False)
    """Case to its number."""
    _kinds: list[tuple[int, Counts, Counts]] = field(default_factory=list, init=False, repr=False)
    """Case, distinct `_codes` of its voxels, and the number of voxels of each."""

    def __post_init__(self) -> None:
        grid = np.asarray(self.thresholds)
        if not len(grid) or (np.diff(grid) <= 0).any() or grid[0] <= 0 or grid[-1] >= 1:
            raise DataError(f"thresholds: {self.thresholds}; give ascending values between 0 and 1")

    def add(self, case: str, probabilities: Probabilities, truth: Masks) -> None:
        """Count a case's voxels, (R, ...) each; a case may be added in several parts, slice by slice.

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
        # Background that passes no threshold is most of a scan, and does not affect Dice.
        self._kinds.append((number, *np.unique(codes[codes > 0], return_counts=True)))

    def _codes(self, probabilities: Probabilities, truth: Masks) -> Counts:
        """One number per voxel that encodes how many thresholds it passes in each region, and its true regions."""
        # Compared in the probabilities' precision, as `probabilities >= threshold` is.
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
        """(M,) cases, (R, M) numbers of thresholds passed, (R, M) truth and (M,) counts of all codes."""
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
        """(N,) whether each case has the region, in the order of addition."""
        case, _, truth, _ = self._decoded()
        return np.bincount(case[truth[row]], minlength=len(self._cases)) > 0

    def dice(self, row: int = 0, chosen: Sequence[float | None] = ()) -> npt.NDArray[np.float64]:
        """(N, K): Dice of every case at every threshold of a region. Both empty 1, one empty 0.

        Of the `chosen` thresholds of all regions, only those of the regions inside this one are used.
        """
        case, passed, truth, counts = self._decoded()
        in_inner = np.zeros(len(case), bool)
        for inner in self.inside[row]:
            if inner != row:
                in_inner |= passed[inner] >= self._needed(chosen[inner])
        true = truth[row]

        def voxels(kinds: Masks) -> npt.NDArray[np.float64]:
            return np.asarray(np.bincount(case[kinds], counts[kinds], minlength=len(self._cases)), np.float64)

        lesion = voxels(true)
        columns = []
        for needed in self._steps[1:]:
            predicted = in_inner | (passed[row] >= needed)
            total = voxels(predicted) + lesion
            columns.append(np.where(total > 0, 2 * voxels(predicted & true) / np.maximum(total, 1), 1.0))
        return np.stack(columns, axis=1)

    def _needed(self, threshold: float | None) -> int:
        """How many thresholds a voxel must pass to be predicted at this threshold."""
        return self.thresholds.index(DEFAULT if threshold is None else threshold) + 1

    def best(self) -> tuple[BestThreshold | None, ...]:
        """Each region's threshold of the highest mean Dice; of equals, the one nearest to 0.5.

        Innermost first: voxels of the regions inside a region, at their chosen thresholds, are predicted for it too.
        None for a region that no case has, which stays at 0.5.

        The mean is over the cases that have the region: where it is absent a single false voxel turns Dice from 1 to
        0, and with few cases that would decide.
        """
        best: list[BestThreshold | None] = [None] * len(self.inside)
        for row in sorted(range(len(self.inside)), key=lambda row: len(self.inside[row])):
            has_lesion = self.has_lesion(row)
            if not has_lesion.any():
                continue
            dice = self.dice(row, [None if region is None else region.threshold for region in best])
            means = dice[has_lesion].mean(axis=0)
            equals = np.flatnonzero(means == means.max())
            chosen = min(equals, key=lambda k: abs(self.thresholds[k] - DEFAULT))
            best[row] = BestThreshold(self.thresholds[chosen], float(means[chosen]), int(has_lesion.sum()))
        return tuple(best)

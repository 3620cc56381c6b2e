"""Statistical disclosure control of a site's histograms: no number describes few patients, or mostly a single one.

The rules are those of statistical disclosure control (Hundepool et al., Statistical Disclosure Control, 2012): a least
frequency, dominance, recoding where bins have neighbours, and complementary suppression where they have none.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.int64]

LARGEST_PART = 0.5
"""Largest share of one patient in a disclosed number: beside four patients with 1 point each, a fifth one's 90 would be
as good as disclosed."""


def disclose(points: Points, apart: int, minimum: int) -> Points:
    """A histogram's sum over patients, reduced to what may be disclosed.

    A number is disclosed if at least `minimum` patients contribute to it and none of them more than half of it. On a
    scale, a rare bin joins its neighbour until this holds; the fullest of the joined bins gets their sum, the others
    0. The bins apart and the scale as a whole have no neighbours: a rare one becomes 0, and its points are added to the
    number behind the last bin. That number follows from the count of patients, which is known, so it must obey the
    same rule; if it does not, further bins are withheld, those of the fewest patients first.

    Args:
        points: (P, B), a row for each of P patients; every row has the same sum.
        apart: number of bins on no scale, which come first.
        minimum: least patients behind a number; 1 discloses everything.

    Returns (B + 1,) with the sum of `points`; the last number is what is withheld, with fewer than `minimum` patients
    all of it.
    """
    scale = points[:, apart:]
    allowed = _disclosed_groups(np.column_stack([points[:, :apart], scale.sum(axis=1)]), minimum)
    disclosed = np.zeros(points.shape[1] + 1, np.int64)
    disclosed[:apart] = np.where(allowed[:-1], points[:, :apart].sum(axis=0), 0)
    if allowed[-1]:
        disclosed[apart:-1] = _merge_rare_bins(scale, minimum)
    disclosed[-1] = points.sum() - disclosed.sum()
    return disclosed


def _may_disclose(points: Points, minimum: int) -> bool:
    """Whether the sum of these points, (P,) or (P, bins), may be disclosed."""
    of_patients = points.reshape(len(points), -1).sum(axis=1)
    total = int(of_patients.sum())
    if total == 0 or minimum == 1:
        return True
    return int((of_patients > 0).sum()) >= minimum and int(of_patients.max()) <= LARGEST_PART * total


def _disclosed_groups(groups: Points, minimum: int) -> npt.NDArray[np.bool_]:
    """(G,) which of the groups (P, G) may be disclosed, such that the others' sum is 0 or may be disclosed too."""
    allowed = np.array([_may_disclose(group, minimum) for group in groups.T])
    patients = (groups > 0).sum(axis=0)
    rarest_first = np.lexsort((groups.sum(axis=0), patients))
    for group in rarest_first[allowed[rarest_first] & (patients[rarest_first] > 0)]:
        if _may_disclose(groups[:, ~allowed], minimum):
            break
        allowed[group] = False
    return allowed


def _merge_rare_bins(scale: Points, minimum: int) -> Points:
    """(B,) sums of (P, B), whose total may be disclosed, with rare bins merged into their neighbours."""
    joined = [[int(bin_)] for bin_ in np.flatnonzero(scale.any(axis=0))]
    totals = np.asarray(scale.sum(axis=0), np.int64)
    while rare := [index for index, bins in enumerate(joined) if not _may_disclose(scale[:, bins], minimum)]:
        weakest = min(rare, key=lambda index: totals[joined[index]].sum())
        lower = _lower_of_pair(joined, weakest, totals)
        joined[lower : lower + 2] = [joined[lower] + joined[lower + 1]]
    sums = np.zeros_like(totals)
    for bins in joined:
        sums[max(bins, key=lambda bin_: totals[bin_])] = totals[bins].sum()
    return sums


def _lower_of_pair(joined: list[list[int]], index: int, totals: Points) -> int:
    """The lower index of the pair of a bin and the neighbour that it joins: the nearer one, of two the fuller."""
    if index in (0, len(joined) - 1):
        return max(index - 1, 0)
    below = joined[index][0] - joined[index - 1][-1]
    above = joined[index + 1][0] - joined[index][-1]
    if below == above:
        return index - 1 if totals[joined[index - 1]].sum() >= totals[joined[index + 1]].sum() else index
    return index - 1 if below < above else index

"""What a site tells of a histogram of its patients: no number stands for a few of them, nor for one among many.

The rules are those of statistical disclosure control (Hundepool et al., Statistical Disclosure Control, 2012): a least
frequency, dominance, recoding where bins have neighbours, and complementary suppression where they have none.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.int64]

LARGEST_PART = 0.5
"""Of what a number tells, one patient makes up no more: beside four others' 1 point each, somebody's 90 are as good as
told."""


def disclose(points: Points, apart: int, minimum: int) -> Points:
    """A histogram's sum over patients as it may be told.

    A number is told when `minimum` patients or more stand in it and none of them makes up more than half of it. On a
    scale, a rare bin joins its neighbour until that holds, and the fullest bin of those that were joined has their
    sum, the others 0. The bins apart and the scale as one have no neighbours: there a rare one reads 0 and what it
    held stands behind the last bin. That number is known anyway, as the patients are, and so obeys the same rule;
    where it does not, further bins are withheld, those of the fewest patients first.

    Args:
        points: (P, B), each of P patients' own; every row has the same sum.
        apart: bins that are on no scale, which come first.
        minimum: 1 tells everything.

    Returns (B + 1,), whose sum is that of `points`. With fewer than `minimum` patients it is all in the last.
    """
    scale = points[:, apart:]
    told = _told_groups(np.column_stack([points[:, :apart], scale.sum(axis=1)]), minimum)
    disclosed = np.zeros(points.shape[1] + 1, np.int64)
    disclosed[:apart] = np.where(told[:-1], points[:, :apart].sum(axis=0), 0)
    if told[-1]:
        disclosed[apart:-1] = _recoded(scale, minimum)
    disclosed[-1] = points.sum() - disclosed.sum()
    return disclosed


def _tellable(points: Points, minimum: int) -> bool:
    """Whether these points, (P,) or (P, bins), may be told as their sum."""
    of_patients = points.reshape(len(points), -1).sum(axis=1)
    total = int(of_patients.sum())
    if total == 0 or minimum == 1:
        return True
    return int((of_patients > 0).sum()) >= minimum and int(of_patients.max()) <= LARGEST_PART * total


def _told_groups(groups: Points, minimum: int) -> npt.NDArray[np.bool_]:
    """(G,) which of (P, G) may be told, so that those which may not are nothing together or may be told as one."""
    told = np.array([_tellable(group, minimum) for group in groups.T])
    standing = (groups > 0).sum(axis=0)
    rarest_first = np.lexsort((groups.sum(axis=0), standing))
    for group in rarest_first[told[rarest_first] & (standing[rarest_first] > 0)]:
        if _tellable(groups[:, ~told], minimum):
            break
        told[group] = False
    return told


def _recoded(scale: Points, minimum: int) -> Points:
    """(B,) sums of (P, B), which may be told as one, with rare bins in the neighbours that they joined."""
    joined = [[int(bin_)] for bin_ in np.flatnonzero(scale.any(axis=0))]
    totals = np.asarray(scale.sum(axis=0), np.int64)
    while rare := [index for index, bins in enumerate(joined) if not _tellable(scale[:, bins], minimum)]:
        weakest = min(rare, key=lambda index: totals[joined[index]].sum())
        lower = _lower_of_pair(joined, weakest, totals)
        joined[lower : lower + 2] = [joined[lower] + joined[lower + 1]]
    sums = np.zeros_like(totals)
    for bins in joined:
        sums[max(bins, key=lambda bin_: totals[bin_])] = totals[bins].sum()
    return sums


def _lower_of_pair(joined: list[list[int]], index: int, totals: Points) -> int:
    """The lower of this and the neighbour that it joins: the nearer one, of two the fuller."""
    if index in (0, len(joined) - 1):
        return max(index - 1, 0)
    below = joined[index][0] - joined[index - 1][-1]
    above = joined[index + 1][0] - joined[index][-1]
    if below == above:
        return index - 1 if totals[joined[index - 1]].sum() >= totals[joined[index + 1]].sum() else index
    return index - 1 if below < above else index

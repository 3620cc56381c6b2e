"""Validation: each case's slices are added up before the division, over however many workers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch

from ganseg_dist.data.batch import Batch
from ganseg_dist.engine.world import World
from ganseg_dist.systems.base import Ratio


def mean_over_cases(
    batches: Iterable[Batch],
    score: Callable[[Batch], dict[str, Ratio]],
    names: Sequence[str],
    cases: int,
    world: World,
) -> dict[str, float]:
    """Each score as the mean over cases of (sum of numerators) / (sum of denominators).

    Every rank passes its own share of the batches and gets the same result. A case counts in a score when one
    of its slices is relevant to it; a score in which no case counts is left out.
    """
    sums = torch.zeros(len(names), 3, cases, dtype=torch.float64, device=world.device)
    for batch in batches:
        ratios = score(batch)
        for row, name in enumerate(names):
            for column, part in enumerate(ratios[name]):
                sums[row, column].index_add_(0, batch.case, part.double())
    scores = {}
    for name, (numerator, denominator, relevant) in zip(names, world.sum(sums), strict=True):
        counts = (relevant > 0) & (denominator > 0)
        if counts.any():
            scores[name] = (numerator[counts] / denominator[counts]).mean().item()
    return scores

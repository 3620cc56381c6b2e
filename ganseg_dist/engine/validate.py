"""Validation: each case's slices are added up before the division, over however many workers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch

from ganseg_dist.data.batch import Batch
from ganseg_dist.engine.world import World
from ganseg_dist.systems.base import Ratio


def mean_over_cases(
    batches: Iterable[Batch],
    score: Callable[[Batch], dict[str, Ratio]],
    empties: Mapping[str, float],
    cases: int,
    world: World,
) -> dict[str, float]:
    """Each score as the mean over cases of (sum of numerators) / (sum of denominators).

    Every rank passes its own share of the batches and gets the same result. A case whose denominator is 0
    scores its entry of `empties`; cases that no batch speaks of do not count, and with none at all the
    result is empty.
    """
    sums = torch.zeros(len(empties), 2, cases, dtype=torch.float64, device=world.device)
    seen = torch.zeros(cases, dtype=torch.float64, device=world.device)
    for batch in batches:
        ratios = score(batch)
        seen.index_add_(0, batch.case, torch.ones_like(batch.case, dtype=torch.float64))
        for row, name in enumerate(empties):
            for column, part in enumerate(ratios[name]):
                sums[row, column].index_add_(0, batch.case, part.double())
    counted = world.sum(seen) > 0
    if not counted.any():
        return {}
    numerators, denominators = world.sum(sums)[:, :, counted].unbind(1)
    empty = sums.new_tensor(list(empties.values()))[:, None]
    scores = torch.where(denominators > 0, numerators / denominators.clamp(min=1e-12), empty)
    return dict(zip(empties, scores.mean(dim=1).tolist(), strict=True))

"""Validation: each case's slices are added up before the division, over any number of workers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from ganseg_dist.data.batch import Batch
from ganseg_dist.engine.state import State
from ganseg_dist.engine.world import World
from ganseg_dist.systems.base import Ratio, System


def mean_over_cases(
    batches: Iterable[Batch],
    score: Callable[[Batch], dict[str, Ratio]],
    names: Sequence[str],
    patients: Sequence[str],
    world: World,
    *,
    fewest_patients: int = 1,
) -> dict[str, float]:
    """Each score as the mean over cases of (sum of numerators) / (sum of denominators).

    Every rank passes its share of the batches and gets the same result. A case counts in a score when one of
    its slices is relevant to it; a score in which cases of fewer patients count is left out. `patients` has the patient
    of each case.
    """
    sums = torch.zeros(len(names), 3, len(patients), dtype=torch.float64, device=world.device)
    for batch in batches:
        ratios = score(batch)
        for row, name in enumerate(names):
            for column, part in enumerate(ratios[name]):
                sums[row, column].index_add_(0, batch.case, part.double())
    scores = {}
    for name, (numerator, denominator, relevant) in zip(names, world.sum(sums), strict=True):
        counts = (relevant > 0) & (denominator > 0)
        if len({patients[case] for case in counts.nonzero().flatten().tolist()}) >= fewest_patients:
            scores[name] = (numerator[counts] / denominator[counts]).mean().item()
    return scores


@contextmanager
def evaluation_mode(system: System, state: State) -> Iterator[None]:
    """Networks in evaluation mode, holding their averaged weights where there are any."""
    raw: dict[str, dict[str, Tensor]] = {}
    for name, network in system.networks.items():
        network.eval()
        if name in state.ema:
            raw[name] = {key: value.clone() for key, value in network.state_dict().items()}
            network.load_state_dict(state.ema[name].module.state_dict())
    try:
        yield
    finally:
        for name, weights in raw.items():
            system.networks[name].load_state_dict(weights)

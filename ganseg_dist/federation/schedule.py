"""Which epochs of which stage each round trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ganseg_dist.config import RunConfig
from ganseg_dist.systems import build_system
from ganseg_dist.systems.base import Stage


@dataclass(frozen=True, slots=True)
class Round:
    """One exchange: every site trains these epochs of this stage, and the server makes one model of them."""

    number: int
    """From 1."""
    stage: int
    first: int
    """Epoch of the stage at which it begins."""
    until: int
    """Epoch of the stage before which it ends."""


def schedule(stages: Sequence[Stage], rounds: int | None) -> tuple[Round, ...]:
    """The rounds of a run in order.

    Stages share the rounds by their epochs, each at least one and none more than its epochs; a stage's epochs are
    spread over its rounds as evenly as whole numbers can.

    Args:
        rounds: how many in all; none: one an epoch.
    """
    epochs = [stage.epochs for stage in stages]
    shares = epochs if rounds is None else [min(own, max(1, round(rounds * own / sum(epochs)))) for own in epochs]
    planned: list[Round] = []
    for stage, (own, share) in enumerate(zip(epochs, shares, strict=True)):
        for part in range(share):
            planned.append(Round(len(planned) + 1, stage, own * part // share, own * (part + 1) // share))
    return tuple(planned)


def rounds_of(config: RunConfig) -> int:
    """How many rounds a run of this config plans."""
    return len(schedule(build_system(config).stages, config.federation.rounds))

"""Assigns the epochs of each stage to rounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ganseg_dist.config import RunConfig
from ganseg_dist.systems import outline_system
from ganseg_dist.systems.base import Stage


@dataclass(frozen=True, slots=True)
class Round:
    """One round: every site trains these epochs of this stage, and the server aggregates the sites' models."""

    number: int
    """From 1."""
    stage: int
    first: int
    """Epoch of the stage at which it begins."""
    until: int
    """Epoch of the stage before which it ends."""


def schedule(stages: Sequence[Stage], rounds: int | None) -> tuple[Round, ...]:
    """The rounds of a run in order.

    Stages share the rounds in proportion to their epochs, each with at least one and at most its number of epochs; a
    stage's epochs are spread over its rounds as evenly as integers allow. None: one round for each epoch.
    """
    epochs = [stage.epochs for stage in stages]
    shares = _rounds_by_stage(epochs, rounds)
    planned: list[Round] = []
    for stage, (total, share) in enumerate(zip(epochs, shares, strict=True)):
        for part in range(share):
            planned.append(Round(len(planned) + 1, stage, total * part // share, total * (part + 1) // share))
    return tuple(planned)


def rounds_of(config: RunConfig) -> int:
    """The number of rounds that a run of this config plans."""
    return rounds_of_stages([stage.epochs for stage in outline_system(config).stages], config.federation.rounds)


def rounds_of_stages(epochs: Sequence[int], rounds: int | None) -> int:
    """The number of rounds of stages of these epochs; it lists none of them, however many there are."""
    return sum(_rounds_by_stage(epochs, rounds))


def _rounds_by_stage(epochs: Sequence[int], rounds: int | None) -> Sequence[int]:
    if rounds is None:
        return epochs
    return [min(total, max(1, round(rounds * total / sum(epochs)))) for total in epochs]

"""What the toy system measures of its generator, and how the report shows it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from toy_networks import Toy

from ganseg_dist.records import Record
from ganseg_dist.report.section import PartResults, Section


class Evidence(Record):
    """The `evidence` of summary.json."""

    gain: float
    """Mean of the generator's weights."""


def evidence(system: Toy, seed: int, healthy: Sequence[Any], lesions: Sequence[Any]) -> Evidence | None:
    """None for the control, which has no generator."""
    if "generator" not in system.networks:
        return None
    return Evidence(gain=float(system.networks["generator"].weight.mean()))


def view(results: PartResults) -> Evidence | None:
    return results.evidence(Evidence)


def lines(recorded: Mapping[str, Any]) -> Iterator[str]:
    yield f"mean gain {recorded['gain']:.3f}"


SECTION = Section("recolouring", "Recolouring", view, '<p>Mean gain {{ "%.3f" | format(view.gain) }}</p>', lines)

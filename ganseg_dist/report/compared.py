"""comparison.json: the federated scores on held-out patients beside those of pooled data and of each site alone."""

from __future__ import annotations

from ganseg_dist.metrics.statistics import Interval, PairedComparison
from ganseg_dist.records import Record
from ganseg_dist.runs import Run


class Compared(Record):
    """One score of comparison.json."""

    score: str
    title: str
    federated: Interval
    pooled: Interval
    alone: Interval
    """Mean over the models that each site trained alone."""
    less_pooled: PairedComparison
    less_alone: PairedComparison
    percent_of_pooled: float | None
    worst_site: str | None
    at_sites: dict[str, dict[str, Interval]]
    """By site and arm."""


class Comparison(Record):
    """comparison.json, which `ganseg federate` writes at its end."""

    patients_known: bool = True
    scores: tuple[Compared, ...]


def read_comparison(run: Run) -> Comparison | None:
    """None for a federation without a comparison. Raises RunError naming the field that is wrong."""
    return run.find_record("comparison.json", Comparison)

"""comparison.json: what `ganseg federate` found the federation to be worth on held-out patients."""

from __future__ import annotations

from pydantic import TypeAdapter

from ganseg_dist.report.reading import Difference, Interval, Record, read_record
from ganseg_dist.runs import Run


class Compared(Record):
    """One score of comparison.json."""

    score: str
    title: str
    federated: Interval
    pooled: Interval
    alone: Interval
    """Mean of the sites alone."""
    less_pooled: Difference
    less_alone: Difference
    percent_of_pooled: float | None
    worst_site: str | None
    at_sites: dict[str, dict[str, Interval]]
    """By site and arm."""


class Comparison(Record):
    """comparison.json: what `ganseg federate` measured at its end."""

    patients_known: bool = True
    scores: tuple[Compared, ...]


def read_comparison(run: Run) -> Comparison | None:
    """None where the federation was not compared with anything. Raises RunError naming the field that is wrong."""
    return read_record(run, "comparison.json", TypeAdapter(Comparison))

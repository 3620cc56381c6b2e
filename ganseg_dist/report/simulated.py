"""Reads sites/*/site.json, the sites of a simulated federation; those of a deployment keep their files at home."""

from __future__ import annotations

from pydantic import TypeAdapter

from ganseg_dist.report.reading import Record, read_record
from ganseg_dist.runs import Run


class SitePatients(Record):
    """A site's patients by part of its split."""

    test: tuple[str, ...]


class SimulatedSite(Record):
    """One site of a simulation."""

    name: str
    minimum_group: int
    """Fewest patients that a number in the site's fingerprint may stand for; 1: it withholds nothing."""
    patients: tuple[str, ...]
    split: SitePatients


def read_simulation(run: Run) -> tuple[SimulatedSite, ...]:
    """By name; empty for a deployment, and where the sites' folders were deleted. Raises RunError naming the field."""
    files = sorted(run.folder.glob("sites/*/site.json"))
    sites = (read_record(run, str(file.relative_to(run.folder)), TypeAdapter(SimulatedSite)) for file in files)
    return tuple(sorted((site for site in sites if site is not None), key=lambda site: site.name))

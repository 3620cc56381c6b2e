"""Reads sites/*/site.json, the sites of a simulated federation; those of a deployment keep their files at home."""

from __future__ import annotations

from ganseg_dist.records import Record
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
    sites = (run.read_record(str(file.relative_to(run.folder)), SimulatedSite) for file in files)
    return tuple(sorted(sites, key=lambda site: site.name))

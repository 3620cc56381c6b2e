"""sites/*/site.json: who stood for the hospitals in a simulation; those of a deployment keep theirs to themselves."""

from __future__ import annotations

from pydantic import TypeAdapter

from ganseg_dist.report.reading import Record, read_record
from ganseg_dist.runs import Run


class SitePatients(Record):
    """Who of a site's patients serves for what."""

    test: tuple[str, ...]


class SimulatedSite(Record):
    """One site of a simulation."""

    name: str
    minimum_group: int
    """Patients that a number which it tells of its data stands for at least; 1: it withholds nothing."""
    patients: tuple[str, ...]
    split: SitePatients


def read_simulation(run: Run) -> tuple[SimulatedSite, ...]:
    """By name; empty of a deployment, and where the sites' folders were deleted. Raises RunError naming the field."""
    files = sorted(run.folder.glob("sites/*/site.json"))
    sites = (read_record(run, str(file.relative_to(run.folder)), TypeAdapter(SimulatedSite)) for file in files)
    return tuple(sorted((site for site in sites if site is not None), key=lambda site: site.name))

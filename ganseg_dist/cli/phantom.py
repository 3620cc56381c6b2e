"""`ganseg phantom`: make a synthetic cohort for tests and examples."""

from __future__ import annotations

from pathlib import Path

import typer

from ganseg_dist.cli import show
from ganseg_dist.plural import counted


def phantom(
    out: Path = typer.Argument(
        metavar="DIR", help="Folder to write the cohort into: a new one, or one with a phantom of the same settings."
    ),
    patients: int = typer.Option(12, min=1, help="Patients with a tumour."),
    sites: int = typer.Option(3, min=1, help="Hospitals; each has its own contrast, noise, bias field and resolution."),
    seed: int = typer.Option(0, min=0, help="The same seed gives the same bytes."),
    healthy: int | None = typer.Option(
        None, min=0, help="Healthy subjects besides; a quarter of the patients if not given."
    ),
    spacing_mm: float = typer.Option(2.0, min=0.5, max=8.0, help="Voxel size in mm; larger is faster."),
) -> None:
    """Make a synthetic cohort to try everything on.

    MNI152 anatomy, deformed for each patient, with synthetic tumours, as BraTS 2020 lays it out. It is a phantom:
    good for trying and testing, never evidence about patients. Rerun the command to resume.
    """
    from ganseg_dist.data.phantom.folder import make_phantom

    healthy = patients // 4 if healthy is None else healthy
    with show.bar("Making phantom subjects") as advance:
        make_phantom(
            out, patients=patients, sites=sites, seed=seed, healthy=healthy, spacing_mm=spacing_mm, progress=advance
        )
    cohort = f"{counted(patients, 'patient')} with a tumour, {counted(healthy, 'healthy subject')}"
    show.echo(f"{out}: phantom cohort at {counted(sites, 'site')}: {cohort} (synthetic, no real people)")

"""`ganseg check`: look for what would spoil training, before anything trains."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from ganseg_dist.cli import show
from ganseg_dist.cli.words import DATA_HELP, LAYOUT_HELP


def check(
    data: Path = typer.Argument(metavar="DATA", help=DATA_HELP),
    layout: str | None = typer.Option(None, metavar="NAME", help=LAYOUT_HELP),
    recipe: str | None = typer.Option(
        None, metavar="RECIPE", help="Also check what this recipe needs, such as skull-stripped scans."
    ),
    as_json: bool = typer.Option(False, "--json", help="Findings as JSON on stdout."),
    local: bool = typer.Option(True, "--local/--ray", help="In this process, or as Ray tasks over a cluster."),
) -> None:
    """Look for what would spoil training.

    Unreadable files, shapes that disagree, NaN, unknown labels, masks outside the head, duplicates and more.
    One line a finding: file, problem, remedy. Exit code 1 when there are errors; with warnings alone it is 0.
    """
    from contextlib import nullcontext

    from ganseg_dist.data.readers import read_cohort
    from ganseg_dist.recipes import recipe as named
    from ganseg_dist.runners.cluster import map_on_cluster
    from ganseg_dist.runners.prepare import map_here, preflight
    from ganseg_dist.runners.visibility import cluster_seeing

    config = None if recipe is None else named(recipe)
    mapper = map_here if local else map_on_cluster
    cohort = read_cohort(data, layout)
    with nullcontext() if local else cluster_seeing(data), show.bar("Checking") as advance:
        found = preflight(cohort, config, mapper=mapper, advance=advance)
    warnings = len(found.findings) - len(found.errors)
    if as_json:
        summary = {
            "root": str(cohort.root),
            "layout": cohort.layout,
            "cases": len(cohort.cases),
            "patients": len(cohort.patients),
            "sites": sorted({case.site for case in cohort.cases}),
            "modalities": list(cohort.modalities),
            "regions": list(cohort.regions),
            "classes": list(cohort.classes),
            "findings": [finding.to_dict() for finding in found.findings],
        }
        typer.echo(json.dumps(summary, indent=1))
    else:
        for finding in found.findings:
            typer.echo(finding.line())
        sites = len({case.site for case in cohort.cases})
        told = [
            f"{cohort.layout}: {len(cohort.cases)} cases, {len(cohort.patients)} patients, {sites} sites",
            f"modalities {', '.join(cohort.modalities) or 'none shared'}",
            f"regions {', '.join(cohort.regions) or 'none'}",
            *([f"classes {', '.join(cohort.classes)}"] if cohort.classes else []),
            f"{len(found.errors)} errors, {warnings} warnings",
        ]
        typer.echo("; ".join(told))
        if recipe is None:
            show.err.print("note: what a recipe needs, such as skull-stripped scans, is checked with --recipe RECIPE")
    if found.errors:
        raise typer.Exit(1)

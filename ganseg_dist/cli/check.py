"""`ganseg check`: find problems in the data before training."""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ganseg_dist.cli import show
from ganseg_dist.cli.options import DATA_HELP, LABELS, LAYOUT, SET_HELP, recipe_config
from ganseg_dist.errors import ConfigError
from ganseg_dist.plural import counted

if TYPE_CHECKING:
    from ganseg_dist.planning.preflight import Preflight

MANY = 10
"""Number of findings above which the summary also counts them by kind."""


def check(
    data: Path = typer.Argument(metavar="DATA", help=DATA_HELP),
    layout: str | None = LAYOUT,
    labels: str | None = LABELS,
    recipe: str | None = typer.Option(
        None,
        metavar="RECIPE",
        help="Also check all that training of this recipe would warn of or reject, such as too few patients to split.",
    ),
    assignments: list[str] = typer.Option([], "--set", metavar="FIELD=VALUE", help=f"{SET_HELP} With --recipe."),
    as_json: bool = typer.Option(False, "--json", help="Findings as JSON on stdout."),
    local: bool = typer.Option(True, "--local/--ray", help="In this process, or as Ray tasks over a cluster."),
) -> None:
    """Look for what would spoil training.

    Unreadable files, shapes that disagree, headers that contradict themselves, NaN, unknown labels, masks outside the
    head, duplicates and more.
    One line a finding: file, problem, remedy. Exit code 1 when there are errors; with warnings alone it is 0.
    """
    from ganseg_dist.cluster.ray_cluster import map_on_cluster
    from ganseg_dist.cluster.shared_paths import cluster_with_shared_paths
    from ganseg_dist.data.readers import read_cohort
    from ganseg_dist.planning.mapper import map_here
    from ganseg_dist.planning.plan import plan_findings
    from ganseg_dist.planning.preflight import preflight

    if assignments and recipe is None:
        raise ConfigError("--set: is of a recipe; give --recipe too")
    config = None if recipe is None else recipe_config(recipe, assignments)
    mapper = map_here if local else map_on_cluster
    cohort = read_cohort(data, layout, labels)
    with nullcontext() if local else cluster_with_shared_paths(data), show.bar("Checking") as advance:
        preflighted = preflight(cohort, config, mapper=mapper, advance=advance)
    findings = preflighted.findings if config is None else (*preflighted.findings, *plan_findings(preflighted, config))
    unfit = _unfit_recipes(preflighted) if config is None else {}
    errors = sum(finding.severity == "error" for finding in findings)
    if as_json:
        summary = {
            "root": str(cohort.root),
            "layout": cohort.layout,
            "cases": len(cohort.cases),
            "patients": len(cohort.patients),
            "sites": sorted({case.site for case in cohort.cases}),
            "modalities": list(cohort.modalities),
            "regions": list(cohort.regions),
            "labels": cohort.scheme.to_json() if cohort.schemes else None,
            "classes": list(cohort.classes),
            "findings": [asdict(finding) for finding in findings],
            "unfit_recipes": unfit,
        }
        show.echo_json(summary)
    else:
        for finding in findings:
            show.echo(finding.line())
        sites = {case.site for case in cohort.cases}
        counts = (len(cohort.cases), "case"), (len(cohort.patients), "patient"), (len(sites), "site")
        parts = [
            f"{cohort.layout}: {', '.join(counted(n, noun) for n, noun in counts)}",
            f"modalities {', '.join(cohort.modalities) or 'none shared'}",
            f"regions {', '.join(cohort.regions) or 'none'}",
            *([f"labels {cohort.scheme.describe()}"] if cohort.schemes else []),
            *([f"classes {', '.join(cohort.classes)}"] if cohort.classes else []),
            f"{counted(errors, 'error')}, {counted(len(findings) - errors, 'warning')}",
        ]
        if len(findings) > MANY:
            kinds = Counter(finding.check for finding in findings).most_common()
            parts.append(f"of them {', '.join(f'{count} {kind}' for kind, count in kinds)}")
        show.echo("; ".join(parts))
        for reason, recipes in _recipes_by_reason(unfit).items():
            show.err.print(f"note: it cannot train {', '.join(recipes)}: {reason}")
        if recipe is None:
            show.err.print("note: --recipe RECIPE also checks what a recipe needs, such as skull-stripped scans")
    if errors:
        raise typer.Exit(1)


def _unfit_recipes(preflighted: Preflight) -> dict[str, str]:
    """Recipes in the published size that cannot be trained on the cohort, with the first reason."""
    from ganseg_dist.planning.plan import plan_findings
    from ganseg_dist.systems import recipes

    configs = {make().system.name: make() for make in reversed([*recipes().values()])}
    unfit: dict[str, str] = {}
    for name, config in reversed(configs.items()):
        reasons = [finding.message for finding in plan_findings(preflighted, config) if finding.severity == "error"]
        if reasons:
            unfit[name] = reasons[0]
    return unfit


def _recipes_by_reason(unfit: dict[str, str]) -> dict[str, list[str]]:
    recipes: dict[str, list[str]] = {}
    for name, reason in unfit.items():
        recipes.setdefault(reason, []).append(name)
    return recipes

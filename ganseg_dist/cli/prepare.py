"""`ganseg prepare`: fill the prepared store ahead of training."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import typer

from ganseg_dist.cli import show


def prepare(
    data: Path = typer.Argument(help="A folder in any supported layout, or a CSV manifest."),
    recipe: str = typer.Option("ganet_seg", help="The recipe whose data settings shape the slices."),
    assignments: list[str] = typer.Option([], "--set", help="FIELD=VALUE, such as data.size=96."),
    layout: str | None = typer.Option(None, help="Layout by name; recognised when not given."),
    exclude_bad: bool = typer.Option(False, help="Go on without cases that fail the checks."),
    local: bool = typer.Option(False, help="In this process instead of as Ray tasks."),
) -> None:
    """Reorient, resample, normalise, crop and slice every case into the memory-mapped store.

    Does nothing for cases that are there already; interrupted and started again, it goes on.
    """
    from ganseg_dist.config import override, parse_assignments
    from ganseg_dist.recipes import recipe as named
    from ganseg_dist.runners.cluster import map_on_cluster, ray_cluster
    from ganseg_dist.runners.prepare import map_here, prepare_cohort, store_root
    from ganseg_dist.runners.session import TrainingRequest, plan_training

    config = override(named(recipe), parse_assignments(assignments))
    request = TrainingRequest(config, data, layout, local=local, exclude_bad=exclude_bad)
    with nullcontext() if local else ray_cluster():
        mapper = map_here if local else map_on_cluster
        plan = plan_training(request, mapper=mapper, bar=show.bar)
        with show.bar("Preparing slices") as advance:
            folders = prepare_cohort(plan.found, plan.cohort.cases, plan.config.data, mapper=mapper, advance=advance)
    typer.echo(f"{len(folders)} cases are prepared in {store_root()}")

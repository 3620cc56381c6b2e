"""`ganseg prepare`: fill the prepared store ahead of training."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import typer

from ganseg_dist.cli import show
from ganseg_dist.cli.options import DATA_HELP, LABELS, LAYOUT, SETTINGS, recipe_config


def prepare(
    data: Path = typer.Argument(metavar="DATA", help=DATA_HELP),
    recipe: str = typer.Option("ganet_seg", metavar="RECIPE", help="The recipe whose data settings shape the slices."),
    assignments: list[str] = SETTINGS,
    layout: str | None = LAYOUT,
    labels: str | None = LABELS,
    exclude_bad: bool = typer.Option(False, "--exclude-bad", help="Go on without cases that fail the checks."),
    local: bool = typer.Option(False, "--local", help="In this process instead of as Ray tasks."),
) -> None:
    """Fill the store of prepared slices ahead of training.

    Reorients, resamples, normalises, crops and slices every case. Training does this too; use it to prepare
    on another machine, or once for many runs. Cases that are prepared already are kept: rerun the command to resume
    after an interruption. The store is in the runs folder, or in GANSEG_STORE.
    """
    from ganseg_dist.cluster.ray_cluster import map_on_cluster
    from ganseg_dist.cluster.shared_paths import cluster_with_shared_paths
    from ganseg_dist.planning.mapper import map_here
    from ganseg_dist.planning.plan import plan_training, warn_of_cohorts
    from ganseg_dist.planning.prepare import prepare_cohort
    from ganseg_dist.planning.request import TrainingRequest
    from ganseg_dist.runs import store_root

    config = recipe_config(recipe, assignments)
    request = TrainingRequest(config, data, layout, local=local, exclude_bad=exclude_bad, labels=labels)
    with nullcontext() if local else cluster_with_shared_paths(data):
        mapper = map_here if local else map_on_cluster
        plan = plan_training(request, mapper=mapper, bar=show.bar)
        warn_of_cohorts(plan, request, show.warn)
        with show.bar("Preparing slices") as advance:
            folders = prepare_cohort(plan.found, plan.cohort.cases, plan.config.data, mapper=mapper, advance=advance)
    show.echo(f"{len(folders)} cases are prepared in {store_root()}")

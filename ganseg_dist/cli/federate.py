"""`ganseg federate`: simulate a federation of hospitals on one machine or cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ganseg_dist.cli import show
from ganseg_dist.cli.options import DATA, LABELS, LAYOUT, RECIPE, SETTINGS, SKEW, one_of, recipe_config
from ganseg_dist.cli.publish import cohort_title, ending, publish
from ganseg_dist.errors import ConfigError
from ganseg_dist.registry import strategy_names

if TYPE_CHECKING:
    from ganseg_dist.planning.mapper import Mapper
    from ganseg_dist.studies.experiments.measures import Measure
    from ganseg_dist.studies.experiments.run import Job
    from ganseg_dist.studies.study import Study
    from ganseg_dist.studies.trial import TrialResult
    from ganseg_dist.tracking.tracked_run import TrackedRun
    from server.simulation import Simulation


def federate(
    recipe: str = RECIPE,
    data: Path = DATA,
    sites: str = typer.Option(
        "by-hospital", metavar="by-hospital|N", help="The data's hospitals, or N simulated ones."
    ),
    skew: str | None = SKEW,
    rounds: int | None = typer.Option(None, min=1, metavar="R", help="Rounds in all; one an epoch when not given."),
    strategy: str | None = typer.Option(
        None, metavar="NAME", help=f"{one_of(strategy_names())}; its settings are federation.* fields."
    ),
    run_name: str | None = typer.Option(None, metavar="NAME", help="Made of recipe and data when not given."),
    assignments: list[str] = SETTINGS,
    from_sweep: str | None = typer.Option(
        None, metavar="SWEEP", help="Take the fields that ganseg tune found best; the other options come after them."
    ),
    layout: str | None = LAYOUT,
    labels: str | None = LABELS,
    cpus: float = typer.Option(1.0, min=0.1, metavar="CORES", help="Of the cluster for each site while it trains."),
    gpus: float = typer.Option(0.0, min=0.0, metavar="SHARE", help="Of a GPU for each site while it trains."),
    local: bool = typer.Option(False, "--local", help="One site after the other in this process, without Ray."),
) -> None:
    """Simulate a federation: every hospital trains locally, a server averages.

    Then the federation, all data in one place, and each hospital alone are compared on the same held-out patients.
    Networks, optimizers and discriminators of a hospital stay in runs/NAME.federated/sites/SITE, with a manifest of
    what left it: ganseg audit runs/NAME.federated/sites/SITE/egress.jsonl

    After an interruption, rerun the same command to resume from the last round.

    [bold]ganseg federate ganet_seg_small --data kaggle_3m[/bold]
    """
    from ganseg_dist.cli.remote_runs import fetch_runs, fetch_trials
    from ganseg_dist.cluster.ray_cluster import map_on_cluster
    from ganseg_dist.data.cohort import split_as_configured
    from ganseg_dist.data.readers import read_cohort
    from ganseg_dist.federation.comparison import FEDERATED
    from ganseg_dist.federation.partition import BY_HOSPITAL, check_sites, validate_site_names
    from ganseg_dist.federation.schedule import rounds_of
    from ganseg_dist.planning.mapper import map_here
    from ganseg_dist.planning.plan import check_plan, plan_training
    from ganseg_dist.planning.request import TrainingRequest
    from ganseg_dist.runs import name_of_trial, named_run
    from ganseg_dist.studies.experiments.federation import federation_trials
    from ganseg_dist.studies.experiments.measures import measures_of
    from ganseg_dist.studies.experiments.run import run_experiment
    from server.simulation import Simulation, validate_sites

    options: dict[str, Any] = {"federation.rounds": rounds, "federation.strategy": strategy}
    changes = {field: value for field, value in options.items() if value is not None}
    config = recipe_config(recipe, assignments, from_sweep=from_sweep, changes=changes)
    check_sites(sites, skew)
    if sites == BY_HOSPITAL:
        validate_site_names(read_cohort(data, layout, labels))
    if local and (cpus != 1 or gpus):
        raise ConfigError("--local: is this one process, on the CPU; leave out --cpus and --gpus, or leave out --local")
    swept = {} if from_sweep is None else {"sweep": from_sweep}
    name = named_run(run_name or _made_name(recipe, data, sites, skew, changes | swept)).name
    fetch_runs(name, name_of_trial(name, FEDERATED), writing=True)
    alone = TrainingRequest(config, data, layout, local=True, labels=labels)
    plan = plan_training(alone, bar=show.bar)
    split = split_as_configured(plan.cohort, config)
    chosen = validate_sites(plan.config, plan.cohort, split, sites, skew)
    members = chosen.sites
    for warning in chosen.warnings():
        show.warn(warning)
    _print_notes(rounds, rounds_of(plan.config), members)
    trials = federation_trials(config, chosen.split, members)
    check_plan(plan, alone, {trial.name: trial.split for trial in trials}, show.warn)
    fetch_trials(name, [trial.name for trial in trials if trial.name != FEDERATED])
    request = replace(alone, run_name=name_of_trial(name, FEDERATED), local=local, split=chosen.split)
    mapper = _federation_first(Simulation(request, sites, skew, cpus, gpus), map_here if local else map_on_cluster)
    experiment, results, parent = run_experiment(
        name, "federation", trials, data, layout, labels, local=local, mapper=mapper
    )
    with ending(parent):
        title = f"federation: {recipe} on {cohort_title(plan.cohort)}"
        _compare(experiment, parent, results, members, measures_of(plan.config), title)


def _made_name(recipe: str, data: Path, sites: str, skew: str | None, changes: Mapping[str, Any]) -> str:
    """A name that differs for different options, so that they do not collide with an earlier experiment."""
    from ganseg_dist.runs import generated_name

    parts = [sites] if sites != "by-hospital" else []
    parts += [skew] if skew else []
    parts += [str(value) for value in changes.values()]
    return generated_name("federation", recipe, data.resolve().stem, *parts)


def _print_notes(rounds: int | None, planned: int, members: Mapping[str, Sequence[str]]) -> None:
    if rounds is not None and rounds != planned:
        show.err.print(
            f"note: {planned} rounds and not {rounds}: each stage has one at least, and one an epoch at most"
        )
    if len(members) == 1:
        show.err.print("note: one site alone is no federation; it gives the weights of a local run")


def _compare(
    experiment: Study,
    parent: TrackedRun,
    results: Sequence[TrialResult],
    members: Mapping[str, Sequence[str]],
    measures: Sequence[Measure],
    title: str,
) -> None:
    """Compare the federation over all test patients and by site, and print the bytes that it sent."""
    from ganseg_dist.federation.comparison import FEDERATED, FederationComparison
    from ganseg_dist.report.federated import describe_traffic
    from ganseg_dist.runs import name_of_trial, named_run
    from ganseg_dist.studies.experiments.federation import (
        TESTED_AT,
        compare,
        comparison_metrics,
        comparison_table,
        save_comparison,
        tabulate_by_site,
        with_mean_of_sites,
    )
    from ganseg_dist.studies.experiments.figures import intervals
    from ganseg_dist.studies.experiments.table import header_and_cells, heading, save_table, tabulate

    all_results = with_mean_of_sites(results)
    rows = tabulate(all_results, measures)
    by_site = tabulate_by_site(all_results, members, measures)
    comparisons = compare(results, by_site, [measure for measure in measures if measure.name in rows[0].scores])
    federated = named_run(name_of_trial(experiment.name, FEDERATED))
    patients_known = all(row.patients_known for row in rows)
    federated.write("comparison.json", FederationComparison(patients_known=patients_known, scores=tuple(comparisons)))
    saved = save_comparison(experiment.folder / "comparison.csv", comparisons)
    publish(experiment, parent, rows, intervals(rows, title), title, saved, metrics=comparison_metrics(comparisons))
    tested = {str(row.labels[TESTED_AT]) for row in by_site}
    untested = [site for site in members if site not in tested]
    at_sites = f"{title}, by the site of those tested"
    site_files = save_table(experiment.folder / "by_site", by_site, intervals(by_site, at_sites))
    show.table(heading(at_sites, by_site), *header_and_cells(by_site))
    if untested:
        show.echo(f"no test patients: {', '.join(untested)}")
    show.echo(f"written: {', '.join(map(str, site_files))}")
    show.table(heading("the federation compared", rows), *comparison_table(comparisons))
    record = federated.federation()
    if record is not None:
        show.echo(f"sent: {describe_traffic(record)}")
    show.echo(f"next: ganseg report {federated.name}")


def _federation_first(simulation: Simulation, others: Mapper) -> Mapper:
    """A mapper that trains the federation here, with a progress display, then maps the rest with `others`."""
    from clients.app import app
    from ganseg_dist.federation.comparison import FEDERATED
    from ganseg_dist.tracking.progress import RichProgress
    from server.simulation import simulate

    def map_trials(function: Callable[[Any], Any], items: list[Any]) -> Iterator[tuple[int, Any]]:
        jobs: list[Job] = items
        first = [job for job in jobs if job.trial.name == FEDERATED]
        for job in first:
            try:
                with closing(RichProgress(show.err)) as tracker:
                    request = replace(simulation.request, tags=job.parent.child_tags)
                    simulate(replace(simulation, request=request), app, tracker=tracker, bar=show.bar)
            except BaseException:
                job.parent.end("FAILED")
                raise
            yield 0, function(job)  # the run is finished, so this only scores it
        rest = [job for job in jobs if job.trial.name != FEDERATED]
        with show.bar("pooled, and each site alone") as advance:
            for done, (index, outcome) in enumerate(others(function, rest), start=1):
                advance(done, len(rest))
                yield len(first) + index, outcome

    return map_trials

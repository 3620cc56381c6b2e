"""A federation simulated on one machine or cluster: hospitals made from one cohort, and the run that they train."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from flwr.serverapp import Grid

from ganseg_dist.atomic import private_folder, write_text
from ganseg_dist.cluster.ray_cluster import ray_cluster
from ganseg_dist.config import RunConfig
from ganseg_dist.data.cohort import Cohort, Split, split_as_configured
from ganseg_dist.engine.tracker import Tracker
from ganseg_dist.federation.partition import BY_HOSPITAL, Participants, participants, partition
from ganseg_dist.federation.policy import SitePolicy
from ganseg_dist.federation.privacy import validate_privacy
from ganseg_dist.federation.schedule import rounds_of
from ganseg_dist.federation.shared_parameters import local_networks
from ganseg_dist.federation.site_settings import FILE, SiteSettings
from ganseg_dist.federation.strategy import with_site_batch_size
from ganseg_dist.names import LONGEST_PART, folder_names
from ganseg_dist.planning.mapper import Bar, map_here, no_bar
from ganseg_dist.planning.plan import Plan, check_plan, plan_training
from ganseg_dist.planning.request import TrainingRequest
from ganseg_dist.planning.run_folder import open_run, update_config
from ganseg_dist.runs import Run
from ganseg_dist.studies.experiments.run import check_classes
from ganseg_dist.systems import outline_system
from ganseg_dist.training.run_training import only_trainer, run_training
from server.aggregation import validate_setup
from server.federated_run import train_federation
from server.grids import Answer, InProcessGrid, RayGrid
from server.sites import Sites, ignore_line


@dataclass(frozen=True, slots=True)
class Simulation:
    """The request for a simulated federation."""

    request: TrainingRequest
    sites: str = BY_HOSPITAL
    skew: str | None = None
    cpus: float = 1
    """CPUs of each site's task on a cluster; GPUs likewise."""
    gpus: float = 0
    command: str | None = None
    """Recorded by the run; None: this process's."""
    sweep: str | None = None
    """Name of the sweep of which it is a trial."""


def simulate(simulation: Simulation, answer: Answer, *, tracker: Tracker | None = None, bar: Bar = no_bar) -> Run:
    """Train by the hospitals' app until the run is finished, over a grid of this package; a second call resumes it."""
    request = simulation.request

    def connect(folders: Sequence[Path]) -> Grid:
        nodes = {number: {"home": str(home)} for number, home in enumerate(folders, start=1)}
        if request.local:
            return InProcessGrid(answer, nodes)
        return RayGrid(answer, nodes, cpus=simulation.cpus, gpus=simulation.gpus)

    with ExitStack() as stack:
        if not request.local:
            with bar("Starting Ray"):
                stack.enter_context(ray_cluster())
        return simulate_on(simulation, connect, tracker=tracker, bar=bar)


def simulate_on(
    simulation: Simulation,
    connect: Callable[[Sequence[Path]], Grid],
    *,
    tracker: Tracker | None = None,
    bar: Bar = no_bar,
    write_line: Callable[[str], None] = ignore_line,
) -> Run:
    """Train until the federation's run is finished, over any grid; a second call resumes it.

    `connect` returns the grid for the hospitals' folders, given in the order of its nodes. `write_line` receives a line
    for each request to the hospitals and each warning about their data.
    """
    request, tracker = simulation.request, tracker or Tracker()
    started = time.monotonic()
    plan = plan_training(request, mapper=map_here, bar=bar)
    chosen = _participants(plan, simulation)
    config = with_site_batch_size(plan.config, len(chosen.sites))
    run, split = open_run(
        request.name(), config, plan.data_record, plan.cohort, split=chosen.split,
        request=request.to_record(), sites={name: len(members) for name, members in chosen.sites.items()},
        left_out=dict(chosen.left_out),
        workers=1, device="cuda" if request.gpus else "cpu",
        **({} if simulation.command is None else {"command": simulation.command}),
        **({} if simulation.sweep is None else {"sweep": simulation.sweep}),
    )  # fmt: skip
    with only_trainer(run):
        if run.finished:
            return run
        update_config(run, config)
        for warning in chosen.warnings():
            write_line(f"warning: {warning}")
        check_plan(plan, request, {"": split}, lambda warning: write_line(f"warning: {warning}"))
        site_folders = _create_site_folders(
            run, request, chosen.sites, split, tuple(outline_system(plan.config).networks)
        )
        sites = Sites(
            connect(list(site_folders.values())), plan.config.federation.deadline_seconds, write_line, site_folders
        )
        train = partial(train_federation, run, config, sites, tracker=tracker, least_sites=len(site_folders))
        run_training(run, train, monitors=plan.monitors, tags=request.tags, started=started)
    return run


def validate_sites(config: RunConfig, cohort: Cohort, split: Split, sites: str, skew: str | None) -> Participants:
    """The hospitals that take part, after checking that they can train by this resolved config.

    Raises ConfigError or DataError where they cannot.
    """
    chosen = participants(partition(cohort, sites, skew=skew, seed=config.seed), split)
    if config.system.task == "classification":
        check_classes(config, cohort, chosen.split)
    local_networks(outline_system(config), config)  # raises for unknown networks
    validate_privacy(config, rounds_of(config))
    validate_setup(config, len(chosen.sites))
    return chosen


def _participants(plan: Plan, simulation: Simulation) -> Participants:
    split = simulation.request.split or split_as_configured(plan.cohort, plan.config)
    return participants(partition(plan.cohort, simulation.sites, skew=simulation.skew, seed=plan.config.seed), split)


def _create_site_folders(
    run: Run, request: TrainingRequest, patients: Mapping[str, tuple[str, ...]], split: Split, networks: Sequence[str]
) -> dict[str, Path]:
    """Creates a folder with a site.toml for every site, all `networks` permitted; returns them by the site's name."""
    created = {}
    folders = folder_names(patients, longest=LONGEST_PART)
    for name, members in patients.items():
        folder = run.folder / "sites" / folders[name]
        private_folder(folder)
        settings = SiteSettings(
            name=name,
            data=request.data.absolute(),
            layout=request.layout,
            labels=request.labels,
            gpu=request.gpus,
            patients=members,
            split=asdict(split.of(members)),
            policy=SitePolicy.of_simulation(networks),
        )
        write_text(folder / FILE, settings.to_toml(comments=False))
        created[name] = folder
    return created

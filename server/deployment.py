"""A federation of real hospitals: the server has their weights and none of their data."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from flwr.serverapp import Grid

from ganseg_dist.config import RunConfig
from ganseg_dist.data.cohort import Cohort, Split
from ganseg_dist.engine.tracker import Tracker
from ganseg_dist.federation.at_sites import config_at_sites
from ganseg_dist.federation.round_instruction import RoundInstruction
from ganseg_dist.federation.site_info import SiteInfo
from ganseg_dist.planning.plan import open_run
from ganseg_dist.runs import Run, training_run
from ganseg_dist.systems import build_system
from ganseg_dist.tracking.tracked_run import TrackedRun
from ganseg_dist.training.run_training import only_trainer, run_training
from server.agreement import agree, agree_again, agreed_scheme
from server.session import train_federation
from server.sites import Sites, nobody_hears

ELSEWHERE = Cohort(Path("federation"), "federation", ())
"""What stands in the place of data that the server never sees."""
NOBODY = Split((), (), ())


@dataclass(frozen=True, slots=True)
class Deployment:
    """What a person asks of a server."""

    config: RunConfig
    run_name: str
    least_sites: int
    """That must say yes before the first round."""


def deploy(asked: Deployment, grid: Grid, *, shown: Tracker, say: Callable[[str], None] = nobody_hears) -> Run:
    """Train until the federation's run is finished; interrupted and called again, it goes on.

    What the config leaves to the data, the hospitals that are there at the start agree on.

    Args:
        say: told in lines what is asked of the hospitals.

    Raises FederationError naming the hospital where nothing common is left, and where too few have said yes.
    """
    started = time.monotonic()
    sites = Sites(grid, asked.config.federation.deadline_seconds, say)
    begun = training_run(asked.run_name)
    if (begun.folder / "config.json").exists():
        config, data = agree_again(asked.config, begun.config()), begun.read("data.json")
    else:
        joined = _joined(asked, sites, partial(shown.warn, 0))
        config = agree(asked.config, joined)
        say(f"agreed on channels {_listed(config.data.modalities)}; regions {_listed(config.data.regions)}")
        data = _learnt_from(config, joined)
    run, _ = open_run(
        asked.run_name, config, data, ELSEWHERE, split=NOBODY,
        command="flwr run", workers=1, device="cpu",  # Flower's own command line holds a secret of the run
        sites={},
    )  # fmt: skip
    with only_trainer(run):
        if run.finished:
            return run

        def train(tracked: TrackedRun) -> Path:
            return train_federation(run, config, sites, tracked, shown=shown, least_sites=asked.least_sites)

        monitors = {stage.name: stage.monitor for stage in build_system(config).stages}
        run_training(run, train, monitors=monitors, tags={}, started=started)
    return run


def _joined(asked: Deployment, sites: Sites, warn: Callable[[str], None]) -> list[SiteInfo]:
    """What the hospitals have; asked again, with what they have agreed on, they make their data ready."""
    sites_config = config_at_sites(asked.config, asked.least_sites).to_json()
    sites.enrol(RoundInstruction(asked.run_name, 0, 0, 0, 0, config=sites_config), asked.least_sites, warn)
    joined = list(sites.members.values())
    sites.members.clear()
    return joined


def _listed(words: tuple[str, ...] | None) -> str:
    return ", ".join(words or ()) or "none"


def _learnt_from(config: RunConfig, joined: list[SiteInfo]) -> dict[str, Any]:
    """What data.json holds of data that stay where they are."""
    origins = {site.origin for site in joined}
    scheme, otherwise = agreed_scheme(config, joined)
    return {
        "root": str(ELSEWHERE.root),
        "layout": ELSEWHERE.layout,
        "phantom": "phantom" in origins,
        "synthetic": "synthetic" in origins,
        "modalities": list(config.data.modalities or ()),
        "regions": list(config.data.regions or ()),
        "channels": [],
        "labels": scheme.to_json(),
        "otherwise_labelled": otherwise,
        "cases": [],
        "excluded": [],
        "healthy": None,
    }

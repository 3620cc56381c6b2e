"""A federation's run: its rounds to the end, and what its run folder keeps of them."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from ganseg_dist.atomic import write_json
from ganseg_dist.config import RunConfig
from ganseg_dist.engine.checkpoint import FolderCheckpoints
from ganseg_dist.engine.tracker import Tracker, Trackers
from ganseg_dist.federation.privacy import keeps_numbers_home
from ganseg_dist.federation.shared_parameters import local_networks
from ganseg_dist.runs import Run
from ganseg_dist.tracking.federation import log_sites
from ganseg_dist.tracking.mlflow_tracker import MLflowTracker
from ganseg_dist.tracking.tracked_run import TrackedRun
from server.comparison import compare_data
from server.rounds import Federation
from server.sites import Sites


def train_federation(
    run: Run, config: RunConfig, sites: Sites, tracked: TrackedRun, *, shown: Tracker, least_sites: int
) -> Path:
    """Every round that is left; the last checkpoint's folder.

    Args:
        config: with everything agreed that a recipe leaves to the data.
        shown: shows the rounds.
        least_sites: that must say yes before the first round.

    Raises FederationError when too few sites take part or answer.
    """
    checkpoints = FolderCheckpoints(run.checkpoints)
    with closing(MLflowTracker.of(tracked)) as logged:
        federation = Federation(run.name, config, sites, checkpoints, Trackers(shown, logged), least_sites)
        federation.enrol(least_sites)
        if config.federation.fingerprint and not keeps_numbers_home(config) and not _compared(run).exists():
            write_json(_compared(run), compare_data(federation))
        ledger = federation.run()
    members = {member.name: member.counts() for member in sites.members.values()}
    run.write("federation.json", {"rounds": ledger.rounds, "quarantined": ledger.quarantined, "sites": members})
    run.describe(absent=sorted(local_networks(federation.system, config)))
    log_sites(run)
    return checkpoints.last()


def _compared(run: Run) -> Path:
    return run.folder / "fingerprint.json"

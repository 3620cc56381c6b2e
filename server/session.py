"""A federation's run: trains all its rounds and writes their records to the run's folder."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from ganseg_dist.config import RunConfig
from ganseg_dist.engine.checkpoint import FolderCheckpoints
from ganseg_dist.engine.tracker import Tracker, Trackers
from ganseg_dist.federation.record import FederationRecord, SiteCounts
from ganseg_dist.federation.shared_parameters import local_networks
from ganseg_dist.runs import Run
from ganseg_dist.tracking.mlflow_tracker import MLflowTracker
from ganseg_dist.tracking.results import log_sites
from ganseg_dist.tracking.tracked_run import TrackedRun
from server.fingerprints import write_fingerprints
from server.rounds import Federation
from server.sites import Sites


def train_federation(
    run: Run, config: RunConfig, sites: Sites, tracked: TrackedRun, *, tracker: Tracker, least_sites: int
) -> Path:
    """Train every remaining round; returns the last checkpoint's folder.

    Args:
        config: resolved: with every field agreed that a recipe leaves to the data.
        tracker: shows the rounds.
        least_sites: that must take part before the first round.

    Raises FederationError when too few sites take part or answer.
    """
    checkpoints = FolderCheckpoints(run.checkpoints)
    with closing(MLflowTracker.of(tracked)) as mlflow:
        federation = Federation(run.name, config, sites, checkpoints, Trackers(tracker, mlflow), least_sites)
        federation.enrol(least_sites)
        write_fingerprints(run, federation)
        ledger = federation.run()
    members = {member.name: SiteCounts.model_validate(member.counts()) for member in sites.members.values()}
    record = FederationRecord(rounds=tuple(ledger.rounds), quarantined=tuple(ledger.quarantined), sites=members)
    run.write("federation.json", record)
    run.describe(absent=sorted(local_networks(federation.system, config)))
    log_sites(run)
    return checkpoints.last()

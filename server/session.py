"""A federation's run: its rounds to the end, and what its run folder keeps of them."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from ganseg_dist.config import RunConfig
from ganseg_dist.engine.checkpoint import FolderCheckpoints
from ganseg_dist.engine.tracker import Tracker, Trackers
from ganseg_dist.federation.exchange import staying
from ganseg_dist.runs import Run
from ganseg_dist.systems import build_system
from ganseg_dist.tracking.mlflow_tracker import MLflowTracker
from ganseg_dist.tracking.tracked_run import TrackedRun
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
        ledger = federation.run()
    run.write("federation.json", {"rounds": ledger.rounds, "quarantined": ledger.quarantined})
    run.describe(absent=sorted(staying(build_system(config), config)))
    return checkpoints.last()

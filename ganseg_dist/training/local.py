"""Training in this process, without Ray."""

from __future__ import annotations

import torch

from ganseg_dist.config import RunConfig
from ganseg_dist.engine.checkpoint import FolderCheckpoints
from ganseg_dist.engine.tracker import Tracker
from ganseg_dist.engine.trainer import train_member
from ganseg_dist.engine.world import World
from ganseg_dist.planning.prepare import Prepared
from ganseg_dist.runs import Run


def train_here(run: Run, config: RunConfig, prepared: Prepared, tracker: Tracker, *, gpu: bool = False) -> None:
    """Train to the end, from the run's newest checkpoint where there is one."""
    world = World(device=torch.device("cuda" if gpu else "cpu"))
    train_member(config, prepared.open(config), world, tracker, FolderCheckpoints(run.checkpoints))

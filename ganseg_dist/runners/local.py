"""Training in this process, without Ray."""

from __future__ import annotations

import torch

from ganseg_dist.config import RunConfig
from ganseg_dist.engine.checkpoint import Checkpoints, FolderCheckpoints
from ganseg_dist.engine.fit import seeded, train
from ganseg_dist.engine.state import State
from ganseg_dist.engine.tracker import Tracker
from ganseg_dist.engine.world import World
from ganseg_dist.runners.plan import Prepared
from ganseg_dist.runs import Run
from ganseg_dist.systems import build_system


def train_here(run: Run, config: RunConfig, prepared: Prepared, tracker: Tracker, *, gpu: bool = False) -> None:
    """Train to the end, from the run's newest checkpoint where there is one."""
    world = World(device=torch.device("cuda" if gpu else "cpu"))
    train_member(config, prepared, world, tracker, FolderCheckpoints(run.checkpoints))


def train_member(
    config: RunConfig, prepared: Prepared, world: World, tracker: Tracker, checkpoints: Checkpoints
) -> State:
    """One member of a training world: what a local process and every Ray worker run."""
    seeded(config, world.device)
    system = build_system(config)
    return train(system, prepared.open(config), config, world=world, tracker=tracker, checkpoints=checkpoints)

"""Trains from a folder of images to a finished run in three steps: plan, prepare, train."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import torch

from ganseg_dist.cluster.ray_cluster import map_on_cluster
from ganseg_dist.cluster.shared_paths import cluster_with_shared_paths
from ganseg_dist.cluster.train import train_on_ray
from ganseg_dist.config import RunConfig
from ganseg_dist.engine.checkpoint import FolderCheckpoints
from ganseg_dist.engine.tracker import Tracker, Trackers
from ganseg_dist.engine.trainer import train_member
from ganseg_dist.engine.world import World
from ganseg_dist.inference.predictor import usable_device
from ganseg_dist.planning.mapper import Bar, map_here, no_bar
from ganseg_dist.planning.plan import plan_training
from ganseg_dist.planning.prepare import Prepared, prepare_training
from ganseg_dist.planning.request import TrainingRequest
from ganseg_dist.planning.run_folder import open_run, planned_run, update_config
from ganseg_dist.runs import Run
from ganseg_dist.tracking.mlflow_tracker import MLflowTracker
from ganseg_dist.tracking.tracked_run import TrackedRun
from ganseg_dist.training.run_training import only_trainer, run_training


def check_gpu(request: TrainingRequest) -> None:
    """Raises RunError when this machine is to train on a GPU and has none; a cluster checks its nodes."""
    if request.gpus and "RAY_ADDRESS" not in os.environ:
        usable_device("cuda")


def train_session(request: TrainingRequest, *, tracker: Tracker | None = None, bar: Bar = no_bar) -> Run:
    """Train until the run is finished; interrupted and called again, it resumes. A finished run is left as it is."""
    started, tracker = time.monotonic(), tracker or Tracker()
    name = request.name()
    check_gpu(request)
    with ExitStack() as stack:
        if not request.local:
            with bar("Starting Ray"):
                stack.enter_context(cluster_with_shared_paths(request.data, request.healthy))
        mapper = map_here if request.local else map_on_cluster

        # Plan: problems that would spoil hours of training show in the files themselves, in seconds.
        plan = plan_training(request, mapper=mapper, bar=bar)
        run, split = planned_run(name, plan.config, plan.data_record, plan.cohort, request.split)

        # Prepare: a run that fails here has not taken the name yet, so that a corrected one can have it.
        if not run.finished:
            prepared = prepare_training(plan, request, split, warn=partial(tracker.warn, 0), mapper=mapper, bar=bar)

        # Train: from here on the folder exists, and one process alone writes to it.
        run, split = open_run(
            name, plan.config, plan.data_record, plan.cohort, split=request.split, request=request.to_record(),
            workers=request.workers, device="cuda" if request.gpus else "cpu",
        )  # fmt: skip
        stack.enter_context(only_trainer(run))
        if run.finished:
            return run
        update_config(run, plan.config)
        if not request.local:
            with bar(f"Starting {request.workers} Ray worker(s)"):
                pass

        def train(tracked: TrackedRun) -> Path:
            return _train(run, plan.config, prepared, request, tracked, tracker)

        run_training(run, train, monitors=plan.monitors, tags=request.tags, started=started)
    return run


def _train(
    run: Run, config: RunConfig, prepared: Prepared, request: TrainingRequest, tracked: TrackedRun, tracker: Tracker
) -> Path:
    if not request.local:
        worker_tracker = partial(MLflowTracker.of, tracked, request.convention)
        return train_on_ray(run, config, prepared, request, tracker=tracker, worker_tracker=worker_tracker)
    with closing(MLflowTracker.of(tracked, request.convention)) as logged:
        train_here(run, config, prepared, Trackers(tracker, logged), gpu=request.gpus)
    return FolderCheckpoints(run.checkpoints).last()


def train_here(run: Run, config: RunConfig, prepared: Prepared, tracker: Tracker, *, gpu: bool = False) -> None:
    """Train to the end in this process, from the run's newest checkpoint where there is one."""
    world = World(device=torch.device("cuda" if gpu else "cpu"))
    train_member(config, prepared.open(config), world, tracker, FolderCheckpoints(run.checkpoints))

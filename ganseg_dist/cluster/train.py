"""Training on Ray Train: one TorchTrainer whose workers all call the engine."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ganseg_dist.cluster.elastic import EpochwiseRules, sizes_between
from ganseg_dist.cluster.ray_cluster import check_resources, no_room
from ganseg_dist.cluster.shared_paths import check_shared_paths, check_worker_paths, training_paths
from ganseg_dist.config import RunConfig
from ganseg_dist.engine.checkpoint import FolderCheckpoints, Warn
from ganseg_dist.engine.tracker import Progress, Tracker, Trackers
from ganseg_dist.errors import GansegError, RunError, one_line
from ganseg_dist.planning.prepare import Prepared
from ganseg_dist.planning.request import TrainingRequest
from ganseg_dist.runs import Run

if TYPE_CHECKING:
    from ray.train import UserCallback

RESTARTS = 3
"""Times that Ray may restart dead workers from the last checkpoint before the run fails."""
PLACEMENT_SECONDS = 20.0
"""That Ray waits for room for all workers, before it counts the room again."""
PATIENCE_SECONDS = 1800.0
"""That training waits for room after a node was lost: Ray itself would wait for ever."""
POLL_SECONDS = 0.3

logger = logging.getLogger(__name__)


def train_on_ray(
    run: Run,
    config: RunConfig,
    prepared: Prepared,
    request: TrainingRequest,
    *,
    tracker: Tracker,
    worker_tracker: Callable[[], Tracker] = Tracker,
) -> Path:
    """Train to the end over Ray workers; returns the last checkpoint's folder.

    Ray restarts killed workers from the newest checkpoint, from which a second call of the same run resumes too.

    Args:
        request: whose workers and GPUs are taken; its config is not the resolved one.
        tracker: receives the progress, in the driver.
        worker_tracker: makes the tracker that rank 0 uses and closes.

    Raises RunError before anything starts when a node that may host a worker does not see the run's folder or the
    prepared slices; and any worker's GansegError as soon as it is raised there: an error that a user must correct is
    not retried.
    """
    import ray
    from ray.train import FailureConfig, ScalingConfig
    from ray.train import RunConfig as RayRunConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from ganseg_dist.compat.ray import ElasticTrainer

    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.25")  # delay until a death is noticed
    placement = float(os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", str(PLACEMENT_SECONDS)))
    workers, gpus = request.workers, request.gpus
    least_workers = request.least_workers or workers
    elastic = least_workers < workers
    check_resources(workers=least_workers, threads=config.train.threads, gpus=gpus)
    resources = {"CPU": config.train.threads, **({"GPU": 1} if gpus else {})}
    run.checkpoints.mkdir(parents=True, exist_ok=True)
    places = training_paths(run, prepared)
    check_shared_paths(places, resources, partial(tracker.warn, 0))
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    relay = ray.remote(num_cpus=0, scheduling_strategy=here)(Relay).remote()
    make_trainer: Callable[..., TorchTrainer] = TorchTrainer
    if elastic:
        sizes = sizes_between(least_workers, workers, config.train.batch_size)
        make_trainer = partial(ElasticTrainer, rules=EpochwiseRules(sizes, run.checkpoints, PATIENCE_SECONDS))
    trainer = make_trainer(
        _worker,
        train_loop_config={
            "config": config.to_json(),
            "prepared": prepared,
            "places": places,
            "checkpoints": run.checkpoints,
            "relay": relay,
            "worker_tracker": worker_tracker,
        },
        torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=(least_workers, workers) if elastic else workers,
            use_gpu=gpus,
            resources_per_worker=resources,
            elastic_resize_monitor_interval_s=0.0,
        ),
        run_config=RayRunConfig(
            name="ray",
            storage_path=str(run.checkpoints),
            failure_config=FailureConfig(
                max_failures=RESTARTS, controller_failure_limit=max(1, int(PATIENCE_SECONDS / max(placement, 1.0)))
            ),
            callbacks=[_fail_fast_on_user_error(relay)],
        ),
    )
    with _show_progress(relay, tracker):
        try:
            trainer.fit()
        except SystemExit:  # how Ray Train ends its driver on Ctrl-C
            raise KeyboardInterrupt from None
        except Exception as error:
            raise as_user_error(error, workers) from error
    return FolderCheckpoints(run.checkpoints).last()


def _worker(settings: dict[str, Any]) -> None:
    import ray.train.torch

    from ganseg_dist.engine.trainer import train_member
    from ganseg_dist.engine.world import World

    check_worker_paths(settings["places"])
    world = World.joined(ray.train.torch.get_device())
    config = RunConfig.from_json(settings["config"])
    data = settings["prepared"].open(config)
    checkpoints = RayCheckpoints(settings["checkpoints"], writes=world.leads)
    if not world.leads:
        train_member(config, data, world, Tracker(), checkpoints)
        return
    with closing(settings["worker_tracker"]()) as logged:
        tracker = Trackers(RelayedProgress(settings["relay"]), logged)
        train_member(config, data, world, tracker, checkpoints)


class RayCheckpoints(FolderCheckpoints):
    """Checkpoints in the run's folder, on storage that all nodes share, as in a local run.

    Ray's own storage rejects a run from which a damaged checkpoint was deleted, and loses an epoch whose report its
    controller has not registered when a worker dies.
    """

    def latest(self, warn: Warn = logger.warning) -> Path | None:
        """Rank 0's newest, or its error, on every rank: shared storage may show another node an older list."""
        from ray.train.collective import broadcast_from_rank_zero

        newest: Path | RunError | None = None
        if self.writes:
            try:
                newest = super().latest(warn)
            except RunError as error:
                newest = error
        newest = broadcast_from_rank_zero(newest)
        if isinstance(newest, RunError):
            raise newest
        return newest


class Relay:
    """Ray actor between rank 0 and the driver, on any nodes: holds calls of a tracker until the driver repeats them."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []

    def put(self, method: str, *arguments: Any) -> None:
        """Called by rank 0, in the order of its calls."""
        self.calls.append((method, arguments))

    def take(self) -> list[tuple[str, tuple[Any, ...]]]:
        """Called by the driver: the calls since the last time, as method and arguments."""
        calls, self.calls = self.calls, []
        return calls


class RelayedProgress(Tracker):
    """Rank 0's end of the relay, which never waits: every epoch and warning, progress a few times a second."""

    def __init__(self, relay: Any) -> None:
        self.relay = relay
        self.sent_at = 0.0

    def progress(self, progress: Progress) -> None:
        """Send at most every POLL_SECONDS; the last batch of an epoch is always sent."""
        now = time.monotonic()
        if now - self.sent_at > POLL_SECONDS or progress.batch == progress.batches:
            self.sent_at = now
            self.relay.put.remote("progress", progress)

    def epoch(self, step: int, scores: Mapping[str, float]) -> None:
        """Send every epoch."""
        self.relay.put.remote("epoch", step, dict(scores))

    def warn(self, step: int, warning: str) -> None:
        """Send every warning."""
        self.relay.put.remote("warn", step, warning)


@contextmanager
def _show_progress(relay: Any, tracker: Tracker) -> Iterator[None]:
    """Poll the relay in a thread, and call the driver's tracker as rank 0 called it."""
    done = threading.Event()
    thread = threading.Thread(target=_poll, args=(relay, tracker, done), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(timeout=5)


def _poll(relay: Any, tracker: Tracker, done: threading.Event) -> None:
    import ray

    finished = False
    while not finished:
        finished = done.wait(POLL_SECONDS)  # polls once more after the end, for the last epoch
        try:
            calls = ray.get(relay.take.remote())
        except Exception:  # training does not depend on the relay
            continue
        for method, arguments in calls:
            getattr(tracker, method)(*arguments)


def _fail_fast_on_user_error(relay: Any) -> UserCallback:
    """A callback that raises a worker's GansegError: Ray would restart workers after any error of theirs."""
    from ray.train import UserCallback

    class FailFastOnUserError(UserCallback):
        def __init__(self) -> None:
            self.losses = 0

        def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
            for error in worker_exceptions.values():
                if isinstance(error, GansegError):
                    raise error
            self.losses += 1
            ranks = ", ".join(map(str, sorted(worker_exceptions)))
            result = "training resumes from the last checkpoint" if self.losses <= RESTARTS else "it was once too often"
            relay.put.remote("warn", 0, f"lost worker(s) {ranks}; {result}")

    return FailFastOnUserError()


def as_user_error(error: Exception, workers: int) -> GansegError:
    """A worker's GansegError if there is one, else a RunError that describes the failure in one line."""
    from ganseg_dist.compat.ray import LOW_ON_MEMORY, is_startup_timeout

    raised = getattr(error, "controller_failure", None)
    if isinstance(raised, GansegError):
        return raised
    if is_startup_timeout(raised):
        return RunError(no_room(workers, PATIENCE_SECONDS))
    if LOW_ON_MEMORY in str(error):
        return RunError(
            "training on Ray failed: a worker was killed, for its node ran out of memory; rerun the same command "
            "with fewer --workers, a smaller train.batch_size, or more memory"
        )
    return RunError(f"training on Ray failed: {one_line(error, last=True)}")

"""A run's training, from its start or resumed: it locks the run and records its end; a finished run has a model."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from filelock import FileLock, Timeout

from ganseg_dist.config import RunConfig
from ganseg_dist.engine.checkpoint import FolderCheckpoints, read_position
from ganseg_dist.engine.state import Epoch
from ganseg_dist.errors import GansegError, RunError, one_line
from ganseg_dist.inference.card import model_card
from ganseg_dist.inference.model_folder import Thresholds, write_model
from ganseg_dist.runs import Kept, Run
from ganseg_dist.storage.sync import syncing
from ganseg_dist.systems.base import Monitor
from ganseg_dist.tracking.tracked_run import TrackedRun, open_tracking


def run_training(
    run: Run,
    train: Callable[[TrackedRun], Path],
    *,
    monitors: Mapping[str, Monitor],
    tags: Mapping[str, str],
    started: float,
) -> None:
    """Train and finish the run, tracked in MLflow; one that fails leaves an interrupted run.

    With GANSEG_RUNS_URI the run is copied there too, checkpoint by checkpoint.

    Args:
        train: returns the last checkpoint's folder.
        monitors: the score that chooses each stage's epoch, by stage.
        started: when this process began, on the monotonic clock.
    """
    earlier = run.description().seconds or 0.0

    def seconds() -> float:
        return earlier + time.monotonic() - started

    with syncing(run.folder, FolderCheckpoints(run.checkpoints).newest):
        tracked = open_tracking(run, tags=tags)
        run.describe(status="training", mlflow=tracked.to_dict())
        try:
            checkpoint = train(tracked)
        except BaseException as error:
            with suppress(GansegError):  # a full disk has raised its error already
                run.describe(status="interrupted", seconds=seconds(), error=_name_and_text(error))
            tracked.end("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
            raise
        with _uninterrupted():
            _finish(run, checkpoint, monitors, seconds=seconds())
            tracked.log_results(run)
            tracked.end("FINISHED")
            # Last: a finished run has a model, also in MLflow. A kill before repeats the steps above.
            run.describe(status="finished")


@contextmanager
def only_trainer(run: Run) -> Iterator[None]:
    """Lock the run. Raises RunError when another process trains it: two writers would spoil its checkpoints."""
    lock = FileLock(run.folder / ".training.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise RunError(f"{run.name}: is being trained by another process; wait for it or end it") from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ignore Ctrl-C and SIGTERM in the block: the seconds in which a trained run becomes a finished one."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _finish(run: Run, checkpoint: Path, monitors: Mapping[str, Monitor], *, seconds: float) -> None:
    """Turn the last checkpoint into history and model."""
    history = read_position(checkpoint).history
    run.write("history.json", list(map(asdict, history)))
    config, data = run.config(), run.data()
    facts = {
        "phantom": data.phantom,
        "synthetic": data.synthetic,
        "run": run.name,
        "patients": len(data.patients),
        "channels": list(data.channels),
        "absent": list(run.description().absent),
    }
    run.describe(seconds=seconds, error=None, kept=epochs_kept(history, monitors, config))
    card = model_card(config, data, run.split(), history, run.description(), run.federation())
    weights = checkpoint / "networks.safetensors"
    scheme = data.labels.of_model(config.data.regions or (), f"{run.folder / 'data.json'}: labels")
    write_model(run.model, config, weights, scheme, card=card, facts=facts, thresholds=Thresholds())


def epochs_kept(history: Sequence[Epoch], monitors: Mapping[str, Monitor], config: RunConfig) -> dict[str, Kept]:
    """By stage, the epoch whose weights it handed on, and the scores by which it is the best; none: the last epoch."""
    kept = {}
    for stage, monitor in monitors.items():
        scores = {record.epoch: record.scores for record in history if record.stage == stage}
        best = monitor.best_epoch(scores) if config.train.keep == "best" else None
        last = Kept(epoch=max(scores), best_of=())
        kept[stage] = last if best is None else Kept(epoch=best, best_of=tuple(monitor.scores))
    return kept


def _name_and_text(error: BaseException) -> str:
    name, text = type(error).__name__, one_line(error)
    return name if text == name else f"{name}: {text}"

"""Training through Ray Train: the weights of a local run, whatever happens to the workers."""

import os
import signal
from functools import partial
from pathlib import Path

import pytest
from safetensors.torch import load_file

from ganseg_dist.engine.tracker import NullTracker, Progress
from ganseg_dist.runners.cluster import ray_cluster
from ganseg_dist.runners.ray_train import train_on_ray
from ganseg_dist.runs import Run
from tests.contract import members


@pytest.fixture(scope="module")
def cluster():
    """A local Ray cluster of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        with ray_cluster():
            yield


class Epochs(NullTracker):
    """Notes each epoch that rank 0 begins, and once, early in one of them, kills its own process."""

    def __init__(self, notes: Path, killed_in: int | None) -> None:
        self.notes, self.killed_in = notes, killed_in

    def progress(self, progress: Progress) -> None:
        if progress.batch != 1:
            return
        begun = self.notes.read_text().splitlines() if self.notes.exists() else []
        with self.notes.open("a") as notes:
            notes.write(f"{progress.stage} {progress.epoch}\n")
        if self.killed_in == len(begun):
            os.kill(os.getpid(), signal.SIGKILL)


class Scores(NullTracker):
    """Keeps what reaches the driver."""

    def __init__(self) -> None:
        self.steps_of_epochs: list[int] = []

    def epoch(self, step, scores) -> None:
        self.steps_of_epochs.append(step)


EPOCHS = ["healthy 0", "healthy 1", "segment 0", "segment 1", "segment 2"]


def on_ray(folder: Path, config, prepared, *, killed_in: int | None = None, workers: int = 1):
    notes, shown = folder / "epochs.txt", Scores()
    checkpoint = train_on_ray(
        Run(folder),
        config,
        prepared,
        workers=workers,
        gpus=False,
        tracker=shown,
        worker_tracker=partial(Epochs, notes, killed_in),
    )
    return load_file(checkpoint / "networks.safetensors"), notes.read_text().splitlines(), shown.steps_of_epochs


def test_one_worker_gives_the_weights_of_a_local_run(cluster, config, prepared, undisturbed, tmp_path):
    weights, epochs, shown = on_ray(tmp_path, config, prepared)
    assert members.differing(weights, members.final_weights(undisturbed)) == []
    assert epochs == EPOCHS
    assert len(shown) == len(EPOCHS)


@pytest.mark.slow
def test_a_killed_worker_goes_on_from_the_last_checkpoint(cluster, config, prepared, undisturbed, tmp_path):
    weights, epochs, _ = on_ray(tmp_path, config, prepared, killed_in=3)
    # Ray may not have registered the checkpoint of the epoch just before the kill: then that one is trained again too.
    before, after = epochs[:4], epochs[4:]
    assert before == EPOCHS[:4]
    assert after in (EPOCHS[3:], EPOCHS[2:])
    assert members.differing(weights, members.final_weights(undisturbed)) == []

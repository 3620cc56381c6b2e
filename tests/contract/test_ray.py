"""Training through Ray Train gives the weights of a local run, also after workers die."""

import json
import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from safetensors.torch import load_file

from ganseg_dist.cluster.ray_cluster import ray_cluster
from ganseg_dist.cluster.train import train_on_ray
from ganseg_dist.engine.checkpoint import FolderCheckpoints
from ganseg_dist.engine.tracker import Progress, Tracker
from ganseg_dist.errors import DataError, RunError
from ganseg_dist.planning.request import TrainingRequest
from ganseg_dist.runs import Run
from tests.contract import members
from tests.contract.test_workers import LOSS_TOLERANCE, RUN_TOLERANCE


@pytest.fixture(scope="module")
def cluster():
    """A local Ray cluster of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        with ray_cluster():
            yield


class Epochs(Tracker):
    """Notes each epoch that rank 0 starts, and calls `happens` early in one of them."""

    def __init__(self, notes: Path, number: int | None, happens: Callable[[], None]) -> None:
        self.notes, self.number, self.happens = notes, number, happens

    def progress(self, progress: Progress) -> None:
        if progress.batch != 1:
            return
        started = self.notes.read_text().splitlines()
        with self.notes.open("a") as notes:
            notes.write(f"{progress.stage} {progress.epoch}\n")
        if self.number == len(started):
            self.happens()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def raise_data_error() -> None:
    raise DataError("case 7: its file is gone; restore it")


class Scores(Tracker):
    """Keeps the epochs and warnings that reach the driver."""

    def __init__(self) -> None:
        self.steps_of_epochs: list[int] = []
        self.warnings: list[str] = []

    def epoch(self, step, scores) -> None:
        self.steps_of_epochs.append(step)

    def warn(self, step, warning) -> None:
        self.warnings.append(warning)


EPOCHS = ["healthy 0", "healthy 1", "segment 0", "segment 1", "segment 2"]


def on_ray(folder: Path, config, prepared, *, number: int | None = None, happens=die, workers: int = 1, shown=None):
    notes, shown = folder / "epochs.txt", shown or Scores()
    notes.touch()
    checkpoint = train_on_ray(
        Run(folder),
        config,
        prepared,
        TrainingRequest(config, folder, workers=workers),
        tracker=shown,
        worker_tracker=partial(Epochs, notes, number, happens),
    )
    return load_file(checkpoint / "networks.safetensors"), notes.read_text().splitlines(), shown.steps_of_epochs


def history(folder: Path) -> list[dict]:
    """The epochs that the newest checkpoint knows."""
    newest = FolderCheckpoints(folder / "checkpoints").latest()
    return json.loads((newest / "state.json").read_text())["position"]["history"]


def test_train_on_ray_with_one_worker_matches_local_run(cluster, config, prepared, undisturbed, tmp_path):
    weights, epochs, shown = on_ray(tmp_path, config, prepared)
    assert members.differing(weights, members.final_weights(undisturbed)) == []
    assert epochs == EPOCHS
    assert len(shown) == len(EPOCHS)


@pytest.mark.slow
def test_train_on_ray_matches_local_run_for_every_system(cluster, other, tmp_path):
    config, prepared, undisturbed = other
    weights, _, _ = on_ray(tmp_path, config, prepared)
    assert members.differing(weights, members.final_weights(undisturbed)) == []


@pytest.mark.slow
def test_train_on_ray_resumes_from_checkpoint_after_worker_is_killed(cluster, config, prepared, undisturbed, tmp_path):
    weights, epochs, _ = on_ray(tmp_path, config, prepared, number=3, happens=die)
    assert epochs == [*EPOCHS[:4], *EPOCHS[3:]]
    assert members.differing(weights, members.final_weights(undisturbed)) == []


@pytest.mark.slow
def test_train_on_ray_with_two_workers_matches_local_run(cluster, config, prepared, undisturbed, tmp_path):
    _, epochs, shown = on_ray(tmp_path, config, prepared, workers=2)
    assert epochs == EPOCHS
    assert len(shown) == len(EPOCHS)
    alone, together = history(undisturbed), history(tmp_path)
    assert len(alone) == len(EPOCHS)
    assert together[0]["losses"] == pytest.approx(alone[0]["losses"], rel=LOSS_TOLERANCE)
    for one, two in zip(alone, together, strict=True):
        assert two["step"] == one["step"]
        assert two["losses"] == pytest.approx(one["losses"], rel=RUN_TOLERANCE)
        assert two["scores"] == pytest.approx(one["scores"], abs=RUN_TOLERANCE)


@pytest.mark.slow
def test_train_on_ray_raises_data_error_of_one_rank_without_retry(cluster, config, prepared, tmp_path):
    with pytest.raises(DataError, match=r"^case 7: its file is gone; restore it$"):
        on_ray(tmp_path, config, prepared, number=1, happens=raise_data_error, workers=2)
    assert (tmp_path / "epochs.txt").read_text().splitlines() == EPOCHS[:2], "training was retried"


@pytest.mark.slow
def test_train_on_ray_skips_damaged_checkpoint_and_fails_without_intact_one(
    cluster, config, prepared, undisturbed, tmp_path, monkeypatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # other runs of this machine have files in the common one
    checkpoints = FolderCheckpoints(tmp_path / "checkpoints")
    shutil.copytree(undisturbed / "checkpoints", checkpoints.folder)
    older, newest = checkpoints.all()
    (newest / "optimizers.safetensors").write_bytes(b"")
    shown = Scores()
    on_ray(tmp_path, config, prepared, workers=2, shown=shown)
    assert shown.warnings == [
        f"{newest}/optimizers.safetensors: is damaged (its digest differs); resuming from the checkpoint before it, "
        f"{older.name}"
    ]
    assert members.differing(members.final_weights(tmp_path), members.final_weights(undisturbed)) == []
    for folder in checkpoints.all():
        (folder / "state.json").unlink()
    with pytest.raises(RunError) as caught:
        on_ray(tmp_path, config, prepared)
    assert str(caught.value) == (
        f"{newest}/state.json: is missing, and no checkpoint before it is whole; delete {checkpoints.folder} to start "
        "over"
    )
    assert list(tmp_path.glob("ganseg-*")) == []

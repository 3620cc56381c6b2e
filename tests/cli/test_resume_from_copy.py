"""Runs at GANSEG_RUNS_URI: a machine that lost its folder resumes from the copy, bit for bit."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ganseg_dist.engine.checkpoint import FolderCheckpoints
from ganseg_dist.storage.contents import Contents
from ganseg_dist.storage.remote import VARIABLE, remote_folder
from tests.cli.conftest import QUICK, Command, assert_error

WEIGHTS = "model/networks.safetensors"


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """The working folder."""
    return tmp_path / "runs"


def train_args(data: Path, name: str = "first") -> list[object]:
    return ["train", "ganet_seg_debug", "--data", data, "--local", "--run-name", name, *QUICK]


@pytest.fixture
def uninterrupted_weights(ganseg: Command, phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Weights of an uninterrupted run without a remote copy."""
    with monkeypatch.context() as patch:
        patch.delenv(VARIABLE, raising=False)
        assert ganseg(*train_args(phantom, "whole")).code == 0
    return (tmp_path / "runs" / "whole" / WEIGHTS).read_bytes()


class SaveCounter:
    """Counts the checkpoints that are written in this process, and may press Ctrl-C after one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, self.interrupt_at = 0, -1
        save = FolderCheckpoints.save

        def counted(checkpoints, scores, write):
            save(checkpoints, scores, write)
            self.count += 1
            if self.count == self.interrupt_at:
                raise KeyboardInterrupt

        monkeypatch.setattr(FolderCheckpoints, "save", counted)


@pytest.mark.parametrize("place", ["folder", pytest.param("bucket", marks=pytest.mark.slow)])
def test_train_resumes_from_remote_copy_after_folder_is_lost(
    place, ganseg, phantom, uninterrupted_weights, runs, tmp_path, monkeypatch, request
):
    monkeypatch.setenv(VARIABLE, (tmp_path / "shared").as_uri())
    if place == "bucket":
        request.getfixturevalue("bucket")
    saves = SaveCounter(monkeypatch)
    saves.interrupt_at = 2
    assert ganseg(*train_args(phantom)).code == 130
    shutil.rmtree(runs / "first")
    done = ganseg(*train_args(phantom))
    assert done.code == 0, done.err
    assert f"Fetching first from {remote_folder().display_uri}: " in done.err
    assert f"Sent while training, to {remote_folder().display_uri}: first" in done.err
    assert saves.count == 4, "an epoch and an end of each of two stages, each saved once"
    assert (runs / "first" / WEIGHTS).read_bytes() == uninterrupted_weights
    listed = Contents.at(remote_folder(), "first")
    assert WEIGHTS in listed.files
    assert "report.html" not in listed.files
    shutil.rmtree(runs / "first")
    reported = ganseg("report", "first")
    assert reported.code == 0, reported.err
    assert f"Sending first to {remote_folder().display_uri}: " in reported.err
    assert "report.html" in Contents.at(remote_folder(), "first").files


def test_train_generates_name_unused_by_remote_runs(ganseg, phantom, runs, tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, (tmp_path / "shared").as_uri())
    args = ["train", "ganet_seg_debug", "--data", phantom, "--local", *QUICK]
    assert ganseg(*args).code == 0
    shutil.rmtree(runs)
    planned = ganseg(*args, "--dry-run")
    assert planned.code == 0, planned.err
    assert f"begins {runs / 'ganet_seg_debug-cohort-2'}\n" in planned.out


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_train_resumes_from_bucket_after_kill_and_lost_folder(ganseg, phantom, bucket, runs, tmp_path, monkeypatch):
    longer = ["--set", "train.epochs=20"]
    with monkeypatch.context() as patch:
        patch.delenv(VARIABLE)
        assert ganseg(*train_args(phantom, "whole"), *longer).code == 0
    args = [sys.executable, "-m", "ganseg_dist", *map(str, train_args(phantom)), *longer]
    process = subprocess.Popen(args, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        kept = checkpoints_kept(process)
    finally:
        process.kill()
        process.wait()
    assert not (runs / "first" / "model").exists(), "killed after training ended"
    shutil.rmtree(runs / "first")
    saves = SaveCounter(monkeypatch)
    done = ganseg(*train_args(phantom), *longer)
    assert done.code == 0, done.err
    assert saves.count <= 23 - len(kept), "training started over"  # two stages' ends, and one and twenty epochs
    assert (runs / "first" / WEIGHTS).read_bytes() == (runs / "whole" / WEIGHTS).read_bytes()


def checkpoints_kept(process: subprocess.Popen[bytes]) -> set[str]:
    """Remote checkpoints, as soon as there are any."""
    end = time.monotonic() + 120
    while True:
        assert process.poll() is None, "training ended before a checkpoint was sent"
        assert time.monotonic() < end, "no checkpoint was sent"
        listed = Contents.at(remote_folder(), "first")
        kept = {path.split("/")[1] for path in (listed.files if listed else ()) if path.startswith("checkpoints/")}
        if kept:
            return kept
        time.sleep(0.05)


@pytest.mark.slow
def test_train_rejects_damaged_remote_copy(ganseg, phantom, runs, tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, (tmp_path / "shared").as_uri())
    saves = SaveCounter(monkeypatch)
    saves.interrupt_at = 2
    assert ganseg(*train_args(phantom)).code == 130
    shutil.rmtree(runs / "first")
    damaged = max((tmp_path / "shared").rglob("optimizers.safetensors"))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert_error(ganseg(*train_args(phantom)), 1, damaged, "is damaged", "restore it, or delete first there")
    assert saves.count == 2
    assert not (runs / "first").exists()


def test_train_rejects_missing_bucket_before_training(ganseg, phantom, s3, runs, monkeypatch):
    monkeypatch.setenv(VARIABLE, f"s3://nowhere/runs?{s3}")
    result = ganseg(*train_args(phantom))
    assert_error(result, 2, VARIABLE, "s3://nowhere/runs", "NO_SUCH_BUCKET", f"unset {VARIABLE}")
    assert not (runs / "first").exists(), "the name is taken"

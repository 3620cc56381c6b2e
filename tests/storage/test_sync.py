"""A run that is copied while it trains: in the background, newest first; failures are only warned of."""

import threading
import time
from pathlib import Path

import pytest

from ganseg_dist.errors import ConfigError
from ganseg_dist.storage import sync
from ganseg_dist.storage.remote import VARIABLE, RemoteFolder
from ganseg_dist.storage.sync import syncing
from ganseg_dist.storage.transfer import fetch


@pytest.fixture(autouse=True)
def _short_poll_interval(monkeypatch):
    monkeypatch.setattr(sync, "LOOK_SECONDS", 0.01)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / "first"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "run.json").write_text("{}")
    return folder


def newest(run: Path):
    return lambda: max((run / "checkpoints").glob("step-*"), default=None)


def save(run: Path, step: int) -> None:
    folder = run / "checkpoints" / f"step-{step}"
    folder.mkdir()
    (folder / "state.json").write_text(str(step))


def remote_files(remote: RemoteFolder, tmp_path: Path) -> list[str]:
    """Names of the files that another machine would fetch now."""
    folder = tmp_path / f"seen-{time.monotonic_ns()}" / "first"
    fetch(folder, remote)
    return sorted(file.name if file.name != "state.json" else file.parent.name for file in folder.rglob("*.json"))


def wait_for(happened) -> None:
    end = time.monotonic() + 5
    while not happened():
        assert time.monotonic() < end, "timeout"
        time.sleep(0.01)


def test_syncing_copies_run_at_start_after_checkpoints_and_at_end(run, remote, tmp_path):
    mine = [".copy.json"]
    with syncing(run, newest(run)):
        wait_for(lambda: remote_files(remote, tmp_path) == [*mine, "run.json"])
        save(run, 1)
        wait_for(lambda: remote_files(remote, tmp_path) == [*mine, "run.json", "step-1"])
        (run / "history.json").write_text("[]")
        time.sleep(0.05)
        assert remote_files(remote, tmp_path) == [*mine, "run.json", "step-1"], "there is no new checkpoint"
    assert remote_files(remote, tmp_path) == [*mine, "history.json", "run.json", "step-1"]


def test_syncing_copies_interrupted_run(run, remote, tmp_path):
    def train() -> None:
        save(run, 1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), syncing(run, newest(run)):
        train()
    assert remote_files(remote, tmp_path) == [".copy.json", "run.json", "step-1"]


def test_syncing_skips_checkpoints_during_slow_copy(run, remote, tmp_path, monkeypatch):
    sent, released, whole = [], threading.Event(), RemoteFolder.send

    def slow(self, file, path):
        sent.append(path)
        released.wait(5)
        return whole(self, file, path)

    monkeypatch.setattr(RemoteFolder, "send", slow)
    with syncing(run, newest(run)):
        wait_for(lambda: sent)
        for step in range(1, 5):
            save(run, step)
            if step > 1:
                (run / "checkpoints" / f"step-{step - 1}" / "state.json").unlink()
                (run / "checkpoints" / f"step-{step - 1}").rmdir()
        released.set()
    assert [path.removeprefix("first/") for path in sent] == ["000001/run.json", "000002/checkpoints/step-4/state.json"]
    assert remote_files(remote, tmp_path) == [".copy.json", "run.json", "step-4"]


def test_syncing_warns_of_failed_copy_and_continues(run, remote, tmp_path, monkeypatch, caplog):
    def away(self, file, path):
        raise ConfigError("GANSEG_RUNS_URI s3://bucket/runs: cannot be written (away); fix it")

    with syncing(run, newest(run)):
        with monkeypatch.context() as patch:
            patch.setattr(RemoteFolder, "send", away)
            save(run, 1)
            wait_for(lambda: caplog.messages)
        save(run, 2)
    assert "first: is not copied for now: GANSEG_RUNS_URI s3://bucket/runs: cannot be written (away); fix it" in (
        caplog.messages
    )
    assert remote_files(remote, tmp_path)[-2:] == ["step-1", "step-2"]


def test_syncing_starts_no_thread_without_remote_folder(run, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    with syncing(run, lambda: pytest.fail("newest was called")):
        assert not [thread for thread in threading.enumerate() if thread.name == "ganseg-sync"]
    assert sorted(path.name for path in run.iterdir()) == ["checkpoints", "run.json"]

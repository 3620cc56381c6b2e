"""What a command opens is as new as its copy, and what it changes is copied when it ends."""

import shutil
from pathlib import Path

import pytest

from ganseg_dist.errors import ConfigError, RunError
from ganseg_dist.storage import session as opened
from ganseg_dist.storage.remote import VARIABLE, RemoteFolder
from ganseg_dist.storage.session import check_location, session, synced
from ganseg_dist.storage.transfer import send


@pytest.fixture(autouse=True)
def _nothing_opened(monkeypatch):
    monkeypatch.setattr(opened, "_folders", {})


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Runs, a sweep and a trial of it, which nobody copied yet."""
    for name in ("first", "second", "second.old", "sweep", "sweep.003"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / ("sweep.json" if name == "sweep" else "run.json")).write_text("1")
    return tmp_path / "runs"


def names(shared: Path) -> list[str]:
    return sorted(folder.name for folder in shared.iterdir()) if shared.exists() else []


def test_what_a_command_changes_is_kept_and_what_it_reads_is_not(runs, shared, remote):
    with session():
        synced(runs / "second")
        (synced(runs / "first") / "report.html").write_text("new")
    assert names(shared) == ["first"]


def test_trials_that_others_wrote_are_kept_with_their_sweep(runs, shared, remote):
    with session():
        synced(runs / "sweep")
    assert names(shared) == ["sweep.003"]


def change_and_raise(folder: Path, error: BaseException) -> None:
    (synced(folder) / "run.json").write_text("changed")
    raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt, RunError])
def test_what_was_changed_is_kept_however_a_command_ends(runs, shared, remote, error):
    with pytest.raises(error), session():
        change_and_raise(runs / "second", error())
    assert names(shared) == ["second"]


def test_a_run_that_is_only_kept_is_fetched(runs, remote):
    send(runs / "first", remote)
    shutil.rmtree(runs / "first")
    assert (synced(runs / "first") / "run.json").read_text() == "1"


def test_each_command_looks_once_for_a_newer_folder(runs, remote, monkeypatch):
    looked = []
    monkeypatch.setattr(opened, "fetch", lambda folder, remote: looked.append(folder))
    for _ in range(2):
        with session():
            synced(runs / "second")
            synced(runs / "second")
    assert looked == [runs / "second"] * 2


def test_a_place_that_cannot_be_written_is_said_until_it_can(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, (tmp_path / "file" / "runs").as_uri())
    (tmp_path / "file").touch()
    for _ in range(2):
        with pytest.raises(ConfigError, match=f"^{VARIABLE} file://"):
            check_location()
    (tmp_path / "file").unlink()
    check_location()
    assert list((tmp_path / "file" / "runs").iterdir()) == []


def away(self, file, path):
    raise ConfigError("GANSEG_RUNS_URI s3://bucket/runs: cannot be written (away); mend it")


def test_what_cannot_be_kept_is_an_error_at_the_end(runs, remote, monkeypatch):
    monkeypatch.setattr(RemoteFolder, "send", away)
    with pytest.raises(RunError) as caught, session():
        (synced(runs / "second") / "run.json").write_text("changed")
    assert str(caught.value) == (
        f"{runs / 'second'}: is whole here, and not kept: GANSEG_RUNS_URI s3://bucket/runs: cannot be written (away); "
        "mend it"
    )


def test_what_cannot_be_kept_does_not_hide_why_a_command_failed(runs, remote, monkeypatch, caplog):
    monkeypatch.setattr(RemoteFolder, "send", away)
    with pytest.raises(RunError, match=r"^mine$"), session():
        change_and_raise(runs / "second", RunError("mine"))
    assert len(caplog.messages) == 1
    assert "is whole here, and not kept" in caplog.messages[0]


def test_what_was_not_kept_is_kept_by_the_next_command(runs, shared, remote, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(RemoteFolder, "send", away)
        with pytest.raises(RunError), session():
            (synced(runs / "second") / "run.json").write_text("changed")
    with session():
        synced(runs / "second")
    assert names(shared) == ["second"]

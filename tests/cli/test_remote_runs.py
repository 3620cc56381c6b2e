"""Commands fetch newer remote copies of runs and upload changed runs when they end."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import pytest

from ganseg_dist.cli import remote_runs
from ganseg_dist.cli.models import fetch_models
from ganseg_dist.cli.remote_runs import fetch_runs, fetch_sweep, fetch_trials
from ganseg_dist.errors import ConfigError, RunError
from ganseg_dist.runs import Run
from ganseg_dist.storage.remote import VARIABLE, RemoteFolder
from ganseg_dist.storage.transfer import send


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Runs, a sweep and a trial of it, without remote copies."""
    for name in ("first", "second", "second.old", "sweep", "sweep.003"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / ("study.json" if name == "sweep" else "run.json")).write_text("1")
    return tmp_path / "runs"


@contextmanager
def command(*references: str, **options: bool) -> Iterator[None]:
    """A command that fetches these runs."""
    with click.Context(click.Command("report")):
        fetch_runs(*references, **options)
        yield


def names(shared: Path) -> list[str]:
    return sorted(folder.name for folder in shared.iterdir()) if shared.exists() else []


def test_fetch_runs_sends_changed_run_only(runs, shared, remote, capsys):
    with command("first", "second"):
        (runs / "first" / "report.html").write_text("new")
    assert names(shared) == ["first"]
    assert capsys.readouterr().err == f"Sending first to {remote.display_uri}: 4 bytes\n"


def test_fetch_runs_sends_trials_with_their_sweep(runs, shared, remote):
    with command("sweep"):
        pass
    assert names(shared) == ["sweep.003"]


def test_fetch_runs_does_not_resend_run_sent_during_training(runs, remote, capsys):
    with command("first"):
        (runs / "first" / "run.json").write_text("changed")
        send(runs / "first", remote)
    assert capsys.readouterr().err == f"Sent while training, to {remote.display_uri}: first\n"


def change_and_raise(folder: Path, error: BaseException) -> None:
    (folder / "run.json").write_text("changed")
    raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt, RunError])
def test_fetch_runs_sends_changed_run_when_command_fails(runs, shared, remote, error):
    with pytest.raises(error), command("second"):
        change_and_raise(runs / "second", error())
    assert names(shared) == ["second"]


def move_to_remote(runs: Path, remote: RemoteFolder, *names: str) -> None:
    """Send these runs and delete their folders, as on another machine."""
    for name in names:
        send(runs / name, remote)
    shutil.rmtree(runs)


def test_fetch_runs_downloads_missing_run(runs, remote, capsys):
    move_to_remote(runs, remote, "first", "second")
    with command("first"):
        assert (runs / "first" / "run.json").read_text() == "1"
        assert not (runs / "second").exists()
    assert capsys.readouterr().err == f"Fetching first from {remote.display_uri}: 1 byte\n"


def test_fetch_runs_ignores_paths_ids_and_unknown_names(runs, shared, remote, capsys):
    with command("./first", "0123456789abcdef", "nothing"):
        pass
    assert (capsys.readouterr().err, names(shared)) == ("", [])


@pytest.mark.parametrize("reference", ["sweep", "sweep.003"])
def test_fetch_sweep_downloads_sweep_without_trials(runs, remote, reference):
    move_to_remote(runs, remote, "sweep", "sweep.003")
    with command():
        fetch_sweep(reference)
        assert [folder.name for folder in runs.glob("[!.]*")] == ["sweep"]


def test_fetch_sweep_accepts_name_that_ends_like_a_trial(runs, remote):
    (runs / "sweep").rename(runs / "sweep.1")
    move_to_remote(runs, remote, "sweep.1")
    with command():
        fetch_sweep("sweep.1")
        assert (runs / "sweep.1" / "study.json").exists()


def test_fetch_trials_downloads_only_trials_without_scores(runs, remote):
    for name in ("cv/trials", "cv.fold_1", "cv.fold_2"):
        (runs / name).mkdir(parents=True)
        (runs / name / "file.json").write_text("1")
    (runs / "cv" / "trials" / "fold_1.json").touch()
    move_to_remote(runs, remote, "cv", "cv.fold_1", "cv.fold_2")
    with command("cv"):
        fetch_trials("cv", ["fold_1", "fold_2", "fold_3"])
        assert sorted(folder.name for folder in runs.glob("[!.]*")) == ["cv", "cv.fold_2"]


def test_fetch_models_downloads_folds_with_their_experiment(runs, remote):
    for name in ("cv", "cv.fold_1", "cv.fold_2"):
        (runs / name).mkdir()
    Run(runs / "cv").write("study.json", {"kind": "folds", "trials": {"fold_1": {}, "fold_2": {}}})
    (runs / "cv.fold_1" / "run.json").write_text("1")
    move_to_remote(runs, remote, "cv", "cv.fold_1")
    with command():
        fetch_models("cv")
        assert sorted(folder.name for folder in runs.glob("[!.]*")) == ["cv", "cv.fold_1"]


def test_fetch_runs_checks_for_newer_copy_once_per_command(runs, remote, monkeypatch):
    looked = []
    monkeypatch.setattr(remote_runs, "fetch", lambda folder, remote, advance: looked.append(folder))
    for _ in range(2):
        with command("second"):
            fetch_runs("second")
    assert looked == [runs / "second"] * 2


def test_fetch_runs_checks_write_access_when_writing(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, (tmp_path / "file" / "runs").as_uri())
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=f"^{VARIABLE} file://.*: cannot be written"), command("first", writing=True):
        pass
    (tmp_path / "file").unlink()
    with command("first", writing=True):
        assert list((tmp_path / "file" / "runs").iterdir()) == []


def fail_upload(self, file, path):
    raise ConfigError("GANSEG_RUNS_URI s3://bucket/runs: cannot be written (away); fix it")


def test_fetch_runs_raises_run_error_when_upload_fails(runs, remote, monkeypatch):
    monkeypatch.setattr(RemoteFolder, "send", fail_upload)
    with pytest.raises(RunError) as caught, command("second"):
        (runs / "second" / "run.json").write_text("changed")
    assert str(caught.value) == (
        f"{runs / 'second'}: is complete here, and not copied: GANSEG_RUNS_URI s3://bucket/runs: cannot be written "
        "(away); fix it"
    )


def test_fetch_runs_keeps_command_error_when_upload_fails_too(runs, remote, monkeypatch, caplog):
    monkeypatch.setattr(RemoteFolder, "send", fail_upload)
    with pytest.raises(RunError, match=r"^mine$"), command("second"):
        change_and_raise(runs / "second", RunError("mine"))
    assert len(caplog.messages) == 1
    assert "is complete here, and not copied" in caplog.messages[0]


def test_fetch_runs_retries_failed_upload_in_next_command(runs, shared, remote, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(RemoteFolder, "send", fail_upload)
        with pytest.raises(RunError), command("second"):
            (runs / "second" / "run.json").write_text("changed")
    with command("second"):
        pass
    assert names(shared) == ["second"]

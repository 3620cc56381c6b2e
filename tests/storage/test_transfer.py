"""Copies of a run's folder: incremental, atomic, and never over another run's."""

import json
import shutil
from pathlib import Path

import pytest

from ganseg_dist.errors import ConfigError, RunError
from ganseg_dist.storage import transfer as copies
from ganseg_dist.storage.contents import Contents
from ganseg_dist.storage.remote import RemoteFolder, remote_folder
from ganseg_dist.storage.transfer import fetch, send
from ganseg_dist.storage.working_copy import stamps
from tests.modes import mode, odd_modes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run of one checkpoint."""
    run = tmp_path / "runs" / "first"
    write(run, {"run.json": "{}", "checkpoints/step-1/state.json": "1", "checkpoints/step-1/rng": "1"})
    return run


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """The run's folder on another machine, not yet fetched."""
    return tmp_path / "other" / "first"


def write(folder: Path, files: dict[str, str]) -> None:
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)


def read(folder: Path) -> dict[str, str]:
    """Every file that is copied."""
    return {path: (folder / path).read_text() for path in stamps(folder)}


def next_checkpoint(folder: Path, number: int) -> None:
    write(folder, {f"checkpoints/step-{number}/state.json": str(number)})
    shutil.rmtree(folder / "checkpoints" / f"step-{number - 1}")


def test_fetch_restores_sent_run_with_times(folder, elsewhere, remote):
    send(folder, remote)
    fetch(elsewhere, remote)
    assert read(elsewhere) == read(folder)
    assert len(read(folder)) == 3
    assert stamps(elsewhere) == stamps(folder), "when a file was changed orders runs by age"


def test_fetch_applies_umask_and_keeps_site_folders_private(umask, folder, elsewhere, remote):
    write(folder, {"sites/north/site.toml": "{}", "model/card.md": ""})
    send(folder, remote)
    fetch(elsewhere, remote)
    assert mode(elsewhere / "sites" / "north") == 0o700
    usual = {path for path in elsewhere.rglob("*") if path != elsewhere / "sites" / "north"}
    assert {str(path.relative_to(elsewhere)) for path in usual} >= {"model/card.md", "sites/north/site.toml"}
    assert odd_modes(elsewhere, umask).keys() <= {"sites/north"}


def test_send_uses_private_staging_folder(folder, remote, monkeypatch):
    seen = []
    real = RemoteFolder.send

    def looked_at(self: RemoteFolder, file: Path, path: str) -> str:
        seen.append(mode(folder.parent / ".copies" / "first.sending"))
        return real(self, file, path)

    monkeypatch.setattr(RemoteFolder, "send", looked_at)
    send(folder, remote)
    assert set(seen) == {0o700}


def test_fetch_creates_nothing_without_remote_copy(elsewhere, remote):
    fetch(elsewhere, remote)
    assert not elsewhere.exists()


def test_send_omits_locks_unfinished_files_and_ray_state(folder, elsewhere, remote):
    mine = {".training.lock": "", "checkpoints/.unfinished-9/state.json": "", "checkpoints/ray/snapshot.json": ""}
    write(folder, mine)
    send(folder, remote)
    fetch(elsewhere, remote)
    assert sorted(read(elsewhere)) == ["checkpoints/step-1/rng", "checkpoints/step-1/state.json", "run.json"]


def test_send_transfers_changes_and_deletions_only(folder, elsewhere, shared, remote, monkeypatch):
    send(folder, remote)
    sent = []
    whole = RemoteFolder.send
    monkeypatch.setattr(RemoteFolder, "send", lambda self, file, path: sent.append(path) or whole(self, file, path))
    send(folder, remote)
    assert sent == []
    next_checkpoint(folder, 2)
    send(folder, remote)
    assert sent == ["first/000002/checkpoints/step-2/state.json"]
    lying = sorted(str(file.relative_to(shared)) for file in shared.rglob("*") if file.is_file())
    assert lying == ["first/000001/run.json", "first/000002/checkpoints/step-2/state.json", "first/contents.json"]
    fetch(elsewhere, remote)
    assert read(elsewhere) == {"checkpoints/step-2/state.json": "2", "run.json": "{}"}


def test_fetch_leaves_folder_of_same_revision(folder, remote):
    send(folder, remote)
    write(folder, {"run.json": '{"status": "interrupted"}'})
    fetch(folder, remote)
    assert read(folder)["run.json"] == '{"status": "interrupted"}'


def test_fetch_replaces_older_folder(folder, elsewhere, remote):
    send(folder, remote)
    fetch(elsewhere, remote)
    next_checkpoint(elsewhere, 2)
    send(elsewhere, remote)
    fetch(folder, remote)
    assert read(folder) == read(elsewhere) == {"checkpoints/step-2/state.json": "2", "run.json": "{}"}
    next_checkpoint(folder, 3)
    send(folder, remote)
    fetch(elsewhere, remote)
    assert read(elsewhere) == {"checkpoints/step-3/state.json": "3", "run.json": "{}"}


def test_send_and_fetch_reject_diverged_folder(folder, elsewhere, remote):
    send(folder, remote)
    fetch(elsewhere, remote)
    next_checkpoint(elsewhere, 2)
    send(elsewhere, remote)
    write(folder, {"run.json": '{"mine": 1}'})
    for copy in (send, fetch):
        with pytest.raises(RunError) as caught:
            copy(folder, remote)
        assert str(caught.value) == (
            f"{folder}: is another than {remote.display_uri}/first, which was copied there from elsewhere; move away "
            "the one that is not wanted and rerun the same command"
        )
    assert read(folder)["run.json"] == '{"mine": 1}'
    shutil.rmtree(folder)
    fetch(folder, remote)
    assert read(folder) == read(elsewhere)


def test_send_and_fetch_reject_other_run_of_same_name(folder, elsewhere, remote):
    send(folder, remote)
    write(elsewhere, {"run.json": "another"})
    for copy in (send, fetch):
        with pytest.raises(RunError, match="is another than"):
            copy(elsewhere, remote)


class Killed(BaseException):
    """Stands for a kill: no code catches it."""


@pytest.mark.parametrize("after", range(7))
def test_send_is_atomic_and_recovers_after_kill(folder, elsewhere, shared, remote, monkeypatch, after):
    send(folder, remote)
    before = read(folder)
    write(folder, {"run.json": "new", "history.json": "new"})
    next_checkpoint(folder, 2)
    left = after

    def killing(method):
        def step(self, *arguments):
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            return method(self, *arguments)

        return step

    with monkeypatch.context() as patch:
        for name in ("send", "replace", "delete_file", "delete_folder", "list_files"):
            patch.setattr(RemoteFolder, name, killing(getattr(RemoteFolder, name)))
        if after < 6:
            with pytest.raises(Killed):
                send(folder, remote)
        else:
            send(folder, remote)
            assert left >= 0, "a step was added: let `after` go further"
    fetch(elsewhere, remote)
    assert read(elsewhere) == (before if after < 4 else read(folder)), "three files, then the list of them"
    send(folder, remote)
    listed = Contents.at(remote, "first")
    assert sorted(remote.list_files("first")) == sorted(
        ["first/contents.json", *(listed.place("first", path) for path in listed.files)]
    )
    assert not (folder.parent / ".copies" / "first.sending").exists()


def test_fetch_rejects_damaged_copy(folder, elsewhere, shared, remote):
    send(folder, remote)
    (shared / "first" / "000001" / "checkpoints" / "step-1" / "rng").write_text("2")
    with pytest.raises(RunError) as caught:
        fetch(elsewhere, remote)
    assert str(caught.value) == (
        f"{remote.display_uri}/first/000001/checkpoints/step-1/rng: is damaged (its digest differs), and "
        "first/contents.json lists it; rerun the same command if the run is being copied now, else restore it, or "
        "delete first there to start over"
    )
    assert not elsewhere.exists()
    assert not list(elsewhere.parent.glob(".unfinished-*"))


def test_fetch_rejects_copy_with_missing_file(folder, elsewhere, shared, remote):
    send(folder, remote)
    (shared / "first" / "000001" / "run.json").unlink()
    with pytest.raises(RunError, match=r"first/000001/run\.json: is missing, and first/contents\.json lists it"):
        fetch(elsewhere, remote)
    assert not elsewhere.exists()


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("../../escaped", "leads out of its folder"),
        ("model/../../../escaped", "leads out of its folder"),
        ("/tmp/escaped", "is not relative"),
        ("C:\\escaped", "is not relative"),
        ("a\0b", "holds a character that no path may have"),
        ("", "names no file"),
    ],
)
def test_fetch_rejects_paths_outside_folder(folder, elsewhere, shared, remote, path, problem):
    send(folder, remote)
    file = shared / "first" / "contents.json"
    listed = json.loads(file.read_text())
    file.write_text(json.dumps(listed | {"files": listed["files"] | {path: listed["files"]["run.json"]}}))
    with pytest.raises(RunError) as caught:
        fetch(elsewhere, remote)
    assert str(caught.value).startswith(
        f"{remote.display_uri}/first/contents.json: path {path!r} {problem}; restore it"
    )
    assert not elsewhere.exists()
    assert [found.name for found in elsewhere.parent.rglob("*")] in ([], [".copies", "first.lock"])
    with pytest.raises(RunError, match="restore it, or delete first there"):
        send(folder, remote)


@pytest.mark.parametrize(
    "change",
    [{"size": "3"}, {"mtime_ns": None}, {"mtime_ns": 2**64}, {"revision": "000001"}, {"revision": -1}, {"digest": 3}],
)
def test_fetch_rejects_contents_of_wrong_types(folder, elsewhere, shared, remote, change):
    send(folder, remote)
    file = shared / "first" / "contents.json"
    listed = json.loads(file.read_text())
    listed["files"]["run.json"] |= change
    file.write_text(json.dumps(listed))
    with pytest.raises(RunError, match=r"/first/contents\.json: is damaged; restore it"):
        fetch(elsewhere, remote)


def test_send_omits_file_names_that_fetch_rejects(folder, elsewhere, remote):
    write(folder, {"notes\nof mine": "", "model/card.md": ""})
    send(folder, remote)
    fetch(elsewhere, remote)
    assert "model/card.md" in read(elsewhere)
    assert not any("notes" in path for path in read(elsewhere))


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 1}', '{"format": 2}'])
def test_fetch_rejects_unreadable_contents(folder, elsewhere, shared, remote, content):
    send(folder, remote)
    (shared / "first" / "contents.json").write_text(content)
    with pytest.raises(RunError, match=rf"^{remote.display_uri}/first/contents\.json: "):
        fetch(elsewhere, remote)


def test_send_copies_files_deleted_during_transfer(folder, elsewhere, remote, monkeypatch):
    whole = RemoteFolder.send

    def slow(self, file, path):
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # training has gone two epochs further
        return whole(self, file, path)

    monkeypatch.setattr(RemoteFolder, "send", slow)
    send(folder, remote)
    fetch(elsewhere, remote)
    assert len(read(elsewhere)) == 3


def test_send_omits_files_deleted_before_linking(folder, elsewhere, remote, monkeypatch):
    link = copies._link

    def late(*arguments):
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        link(*arguments)

    monkeypatch.setattr(copies, "_link", late)
    send(folder, remote)
    fetch(elsewhere, remote)
    assert read(elsewhere) == {"run.json": "{}"}


def test_send_copies_files_without_hard_links(folder, elsewhere, remote, monkeypatch):
    def raise_permission_error(self, target):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", raise_permission_error)
    send(folder, remote)
    fetch(elsewhere, remote)
    assert read(elsewhere) == read(folder)


def fail_upload(self, file, path):
    raise ConfigError("GANSEG_RUNS_URI: cannot be written")


def test_send_retries_after_failure(folder, elsewhere, remote, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(RemoteFolder, "send", fail_upload)
        with pytest.raises(ConfigError):
            send(folder, remote)
    send(folder, remote)
    fetch(elsewhere, remote)
    assert read(elsewhere) == read(folder)


def test_send_copies_everything_to_other_uri(folder, elsewhere, tmp_path, remote, monkeypatch):
    send(folder, remote)
    monkeypatch.setenv("GANSEG_RUNS_URI", (tmp_path / "second").as_uri())
    send(folder, remote_folder())
    fetch(elsewhere, remote_folder())
    assert read(elsewhere) == read(folder)


def test_send_omits_local_record(folder, remote):
    send(folder, remote)
    assert "first/000001/.copy.json" not in remote.list_files("first")
    assert json.loads((folder / ".copy.json").read_text())["uri"] == remote.identity


def test_contents_are_reread_when_replaced_during_read(folder, remote, monkeypatch):
    """An S3 reader requests the length first, and may then read that many bytes of the next object."""
    send(folder, remote)
    whole = remote.read("first/contents.json")
    readings = [whole[:-9], whole[:-5], whole]
    monkeypatch.setattr(RemoteFolder, "read", lambda self, path: readings.pop(0))
    assert Contents.at(remote, "first").revision == 1
    assert readings == []


def test_contents_raise_run_error_when_truncated(folder, remote, monkeypatch):
    send(folder, remote)
    cut = remote.read("first/contents.json")[:-9]
    monkeypatch.setattr(RemoteFolder, "read", lambda self, path: cut)
    with pytest.raises(RunError, match=r"contents\.json: is damaged"):
        Contents.at(remote, "first")

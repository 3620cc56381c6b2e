"""Copies of a run's folder: as little as changed, whole or not at all, and never over another's."""

import json
import shutil
from pathlib import Path

import pytest

from ganseg_dist.errors import ConfigError, RunError
from ganseg_dist.storage import transfer as copies
from ganseg_dist.storage.contents import Contents
from ganseg_dist.storage.record import stamps
from ganseg_dist.storage.remote import RemoteFolder, remote_folder
from ganseg_dist.storage.transfer import fetch, send
from tests.modes import mode, odd_modes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run of one checkpoint."""
    run = tmp_path / "runs" / "first"
    write(run, {"run.json": "{}", "checkpoints/step-1/state.json": "1", "checkpoints/step-1/rng": "1"})
    return run


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """The same run's folder on another machine, which has none yet."""
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


def test_what_was_sent_is_fetched_where_there_is_nothing(folder, elsewhere, remote):
    send(folder, remote)
    fetch(elsewhere, remote)
    assert read(elsewhere) == read(folder)
    assert len(read(folder)) == 3
    assert stamps(elsewhere) == stamps(folder), "when a file was changed orders runs by age"


def test_a_fetched_folder_has_the_modes_that_the_umask_gives_and_homes_are_closed(umask, folder, elsewhere, remote):
    write(folder, {"sites/north/site.json": "{}", "model/card.md": ""})
    send(folder, remote)
    fetch(elsewhere, remote)
    assert mode(elsewhere / "sites" / "north") == 0o700
    usual = {path for path in elsewhere.rglob("*") if path != elsewhere / "sites" / "north"}
    assert {str(path.relative_to(elsewhere)) for path in usual} >= {"model/card.md", "sites/north/site.json"}
    assert odd_modes(elsewhere, umask).keys() <= {"sites/north"}


def test_what_is_being_sent_is_seen_by_nobody_else(folder, remote, monkeypatch):
    seen = []
    real = RemoteFolder.send

    def looked_at(self: RemoteFolder, file: Path, path: str) -> str:
        seen.append(mode(folder.parent / ".kept" / "first.sending"))
        return real(self, file, path)

    monkeypatch.setattr(RemoteFolder, "send", looked_at)
    send(folder, remote)
    assert set(seen) == {0o700}


def test_what_is_not_kept_is_not_fetched(elsewhere, remote):
    fetch(elsewhere, remote)
    assert not elsewhere.exists()


def test_locks_and_what_is_being_written_and_rays_notes_stay_here(folder, elsewhere, remote):
    mine = {".training.lock": "", "checkpoints/.unfinished-9/state.json": "", "checkpoints/ray/snapshot.json": ""}
    write(folder, mine)
    send(folder, remote)
    fetch(elsewhere, remote)
    assert sorted(read(elsewhere)) == ["checkpoints/step-1/rng", "checkpoints/step-1/state.json", "run.json"]


def test_only_what_changed_is_sent_and_what_was_deleted_is_deleted(folder, elsewhere, shared, remote, monkeypatch):
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


def test_a_folder_that_is_as_new_is_left_alone(folder, remote):
    send(folder, remote)
    write(folder, {"run.json": '{"status": "interrupted"}'})
    fetch(folder, remote)
    assert read(folder)["run.json"] == '{"status": "interrupted"}'


def test_an_older_folder_is_replaced_by_what_went_on_elsewhere(folder, elsewhere, remote):
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


def test_a_folder_that_went_on_in_two_places_is_neither_sent_nor_replaced(folder, elsewhere, remote):
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
            "the one that is not wanted and start again"
        )
    assert read(folder)["run.json"] == '{"mine": 1}'
    shutil.rmtree(folder)
    fetch(folder, remote)
    assert read(folder) == read(elsewhere)


def test_a_run_of_the_same_name_that_was_never_copied_is_not_mixed_with_it(folder, elsewhere, remote):
    send(folder, remote)
    write(elsewhere, {"run.json": "another"})
    for copy in (send, fetch):
        with pytest.raises(RunError, match="is another than"):
            copy(elsewhere, remote)


class Killed(BaseException):
    """Stands for a kill: nobody catches it."""


@pytest.mark.parametrize("after", range(7))
def test_a_copy_that_was_cut_off_changed_nothing_and_is_made_good_by_the_next(
    folder, elsewhere, shared, remote, monkeypatch, after
):
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
    assert not (folder.parent / ".kept" / "first.sending").exists()


def test_a_damaged_copy_is_not_taken(folder, elsewhere, shared, remote):
    send(folder, remote)
    (shared / "first" / "000001" / "checkpoints" / "step-1" / "rng").write_text("2")
    with pytest.raises(RunError) as caught:
        fetch(elsewhere, remote)
    assert str(caught.value) == (
        f"{remote.display_uri}/first/000001/checkpoints/step-1/rng: is damaged (its digest differs), and "
        "first/contents.json lists it; start again if the run is being copied just now, else restore it, or delete "
        "first there to start over"
    )
    assert not elsewhere.exists()
    assert not list(elsewhere.parent.glob(".unfinished-*"))


def test_a_copy_that_lacks_a_file_is_not_taken(folder, elsewhere, shared, remote):
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
def test_a_list_that_names_a_file_elsewhere_fetches_nothing(folder, elsewhere, shared, remote, path, problem):
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
    assert [found.name for found in elsewhere.parent.rglob("*")] in ([], [".kept", "first.lock"])
    with pytest.raises(RunError, match="restore it, or delete first there"):
        send(folder, remote)


@pytest.mark.parametrize(
    "change",
    [{"size": "3"}, {"mtime_ns": None}, {"mtime_ns": 2**64}, {"revision": "000001"}, {"revision": -1}, {"digest": 3}],
)
def test_a_list_of_other_types_is_damaged(folder, elsewhere, shared, remote, change):
    send(folder, remote)
    file = shared / "first" / "contents.json"
    listed = json.loads(file.read_text())
    listed["files"]["run.json"] |= change
    file.write_text(json.dumps(listed))
    with pytest.raises(RunError, match=r"/first/contents\.json: is damaged; restore it"):
        fetch(elsewhere, remote)


def test_a_file_that_could_not_be_fetched_is_not_sent(folder, elsewhere, remote):
    write(folder, {"notes\nof mine": "", "model/card.md": ""})
    send(folder, remote)
    fetch(elsewhere, remote)
    assert "model/card.md" in read(elsewhere)
    assert not any("notes" in path for path in read(elsewhere))


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 1}', '{"format": 2}'])
def test_a_list_that_cannot_be_understood_is_said(folder, elsewhere, shared, remote, content):
    send(folder, remote)
    (shared / "first" / "contents.json").write_text(content)
    with pytest.raises(RunError, match=rf"^{remote.display_uri}/first/contents\.json: "):
        fetch(elsewhere, remote)


def test_what_is_deleted_while_it_is_sent_is_sent_as_it_was(folder, elsewhere, remote, monkeypatch):
    whole = RemoteFolder.send

    def slow(self, file, path):
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # training has gone two epochs further
        return whole(self, file, path)

    monkeypatch.setattr(RemoteFolder, "send", slow)
    send(folder, remote)
    fetch(elsewhere, remote)
    assert len(read(elsewhere)) == 3


def test_what_is_deleted_while_it_is_looked_for_is_not_sent(folder, elsewhere, remote, monkeypatch):
    link = copies._link

    def late(*arguments):
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        link(*arguments)

    monkeypatch.setattr(copies, "_link", late)
    send(folder, remote)
    fetch(elsewhere, remote)
    assert read(elsewhere) == {"run.json": "{}"}


def test_a_file_system_without_hard_links_gets_copies(folder, elsewhere, remote, monkeypatch):
    def refuse(self, target):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    send(folder, remote)
    fetch(elsewhere, remote)
    assert read(elsewhere) == read(folder)


def away(self, file, path):
    raise ConfigError("GANSEG_RUNS_URI: cannot be written")


def test_a_failed_copy_is_sent_with_the_next(folder, elsewhere, remote, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(RemoteFolder, "send", away)
        with pytest.raises(ConfigError):
            send(folder, remote)
    send(folder, remote)
    fetch(elsewhere, remote)
    assert read(elsewhere) == read(folder)


def test_another_uri_gets_a_whole_copy(folder, elsewhere, tmp_path, remote, monkeypatch):
    send(folder, remote)
    monkeypatch.setenv("GANSEG_RUNS_URI", (tmp_path / "second").as_uri())
    send(folder, remote_folder())
    fetch(elsewhere, remote_folder())
    assert read(elsewhere) == read(folder)


def test_the_record_of_a_copy_stays_here(folder, remote):
    send(folder, remote)
    assert "first/000001/.kept.json" not in remote.list_files("first")
    assert json.loads((folder / ".kept.json").read_text())["address"] == remote.identity


def test_a_list_that_is_replaced_while_it_is_read_is_read_again(folder, remote, monkeypatch):
    """An object's reader asks for its length first, and may get as much of the next one."""
    send(folder, remote)
    whole = remote.read("first/contents.json")
    readings = [whole[:-9], whole[:-5], whole]
    monkeypatch.setattr(RemoteFolder, "read", lambda self, path: readings.pop(0))
    assert Contents.at(remote, "first").revision == 1
    assert readings == []


def test_a_list_that_stays_cut_off_is_damaged(folder, remote, monkeypatch):
    send(folder, remote)
    cut = remote.read("first/contents.json")[:-9]
    monkeypatch.setattr(RemoteFolder, "read", lambda self, path: cut)
    with pytest.raises(RunError, match=r"contents\.json: is damaged"):
        Contents.at(remote, "first")

import csv
import errno
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from ganseg_dist.atomic import (
    UNFINISHED,
    copy_files,
    discard_folder,
    private_folder,
    save_new,
    unfinished_folder,
    whole_folder,
    write_csv,
    write_file,
    write_json,
)  # fmt: skip
from ganseg_dist.errors import GansegError
from tests.modes import mode, odd_modes


def fill(folder, text):
    with whole_folder(folder) as unfinished:
        (unfinished / "result").write_text(text)


@pytest.fixture(params=["results", "results [1]", "new"])
def folder(request, tmp_path):
    """A folder with an earlier result."""
    folder = tmp_path / request.param
    fill(folder, "earlier")
    return folder


def names(path):
    return sorted(entry.name for entry in path.iterdir())


def test_whole_folder_replaces_earlier_folder(folder):
    fill(folder, "new")
    assert (folder / "result").read_text() == "new"
    assert names(folder.parent) == [folder.name]


def test_whole_folder_keeps_earlier_folder_on_error(folder):
    with pytest.raises(ZeroDivisionError), whole_folder(folder) as unfinished:
        (unfinished / "result").write_text(str(1 / 0))
    assert (folder / "result").read_text() == "earlier"
    assert names(folder.parent) == [folder.name]


def test_whole_folder_error_names_final_path(tmp_path):
    def full(unfinished):
        raise OSError(errno.ENOSPC, "No space left on device", str(unfinished))

    with pytest.raises(GansegError) as caught, whole_folder(tmp_path / "results") as unfinished:
        write_file(unfinished / "more" / "scores.csv", full)
    assert str(caught.value).startswith(f"{tmp_path / 'results' / 'more' / 'scores.csv'}: cannot be written (No space")
    assert names(tmp_path) == []


def test_whole_folder_restores_earlier_folder_when_rename_fails(folder):
    with pytest.raises(GansegError, match="cannot be written"), whole_folder(folder) as unfinished:
        unfinished.rmdir()  # so that it cannot be renamed into its place
    assert (folder / "result").read_text() == "earlier"
    assert names(folder.parent) == [folder.name]


KILLED_AT_RENAME = """
import os, signal, sys
from pathlib import Path
from ganseg_dist.atomic import whole_folder

left = int(sys.argv[2])

def hook(event, arguments):
    global left
    if event == "os.rename":
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

with whole_folder(Path(sys.argv[1])) as unfinished:
    (unfinished / "result").write_text("new")
    sys.addaudithook(hook)
"""


def killed_at_rename(folder, number):
    done = subprocess.run([sys.executable, "-c", KILLED_AT_RENAME, str(folder), str(number)], check=False)
    assert done.returncode == -signal.SIGKILL


def test_whole_folder_restores_folder_moved_aside_by_killed_process(folder):
    beside = folder.with_name("beside")
    fill(beside, "another")
    killed_at_rename(folder, 1)
    assert not folder.exists()
    fill(beside, "another one")
    assert not folder.exists(), "another folder's writer took it for its own"
    with whole_folder(folder) as unfinished:
        assert (folder / "result").read_text() == "earlier"
        (unfinished / "result").write_text("new")
    assert (folder / "result").read_text() == "new"


def test_whole_folder_keeps_earlier_folder_when_killed_before_rename(folder):
    killed_at_rename(folder, 0)
    assert (folder / "result").read_text() == "earlier"


def test_write_file_keeps_earlier_file_on_error(tmp_path):
    file = tmp_path / "sub" / "mask.nii.gz"
    write_file(file, lambda unfinished: unfinished.write_text("first"))

    def half(unfinished):
        assert unfinished.name.endswith(".nii.gz")
        unfinished.write_text("sec")
        raise OSError(28, os.strerror(28))

    with pytest.raises(GansegError, match=r"mask\.nii\.gz: cannot be written \(No space left on device\)"):
        write_file(file, half)
    assert file.read_text() == "first"
    assert names(file.parent) == [file.name]


def test_whole_folder_applies_umask(umask, tmp_path):
    with whole_folder(tmp_path / "results") as unfinished:
        write_csv(unfinished / "patients" / "cases.csv", [{"patient": "Ada"}])
        write_json(unfinished / "summary.json", {})
        write_file(unfinished / "w.safetensors", lambda file: save_file({"w": np.zeros(2)}, file))
        save_new(unfinished / "new.safetensors", lambda file: save_file({"w": np.zeros(2)}, file))
    assert odd_modes(tmp_path, umask) == {}


def test_write_json_applies_umask_to_replaced_file(umask, tmp_path):
    (tmp_path / "scores.json").touch(mode=0o600)
    write_json(tmp_path / "scores.json", {})
    assert odd_modes(tmp_path, umask) == {}


def test_copy_files_applies_umask(umask, tmp_path):
    for name in ("from", "to"):
        (tmp_path / name).mkdir()
    (tmp_path / "from" / "weights").write_text("0.5")
    (tmp_path / "from" / "weights").chmod(0o400)
    copy_files(tmp_path / "from", tmp_path / "to")
    assert (tmp_path / "to" / "weights").read_text() == "0.5"
    assert odd_modes(tmp_path / "to", umask) == {}


def test_private_folder_is_owner_only_below_umask_parents(umask, tmp_path):
    folder = tmp_path / "sites" / "north"
    private_folder(folder)
    assert mode(folder) == 0o700
    assert mode(folder.parent) == 0o777 & ~umask
    folder.chmod(0o755)
    private_folder(folder)
    assert mode(folder) == 0o700


def test_write_csv_round_trips_special_characters(tmp_path):
    cells = [('a"b,c', "one\ntwo"), ("g\rover", "x\r\ny"), (" é=1+1", "")]
    rows = [{"case": case, "site": site} for case, site in cells]
    write_csv(tmp_path / "cases.csv", rows)
    with (tmp_path / "cases.csv").open(newline="", encoding="utf-8") as stream:
        assert list(csv.DictReader(stream)) == rows
    assert b"case,site\n" in (tmp_path / "cases.csv").read_bytes()


def test_write_csv_escapes_invalid_utf8(tmp_path):
    write_csv(tmp_path / "cases.csv", [{"case": "BraTS_\udcff"}])
    assert (tmp_path / "cases.csv").read_text(encoding="utf-8") == "case\nBraTS_\\udcff\n"


def test_unfinished_folder_applies_umask_and_is_removed_unless_renamed(tmp_path, umask):
    with unfinished_folder(tmp_path / "new") as folder:
        assert folder.name.startswith(UNFINISHED)
        assert mode(folder) == 0o777 & ~umask
        (folder / "file").touch()
        folder.rename(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt), unfinished_folder(tmp_path / "new") as folder:
        raise KeyboardInterrupt
    assert [path.name for path in sorted(tmp_path.rglob("*"))] == ["new", "whole", "file"]


def test_discard_folder_accepts_missing_folder(tmp_path):
    (tmp_path / "old" / "below").mkdir(parents=True)
    discard_folder(tmp_path / "old")
    discard_folder(tmp_path / "old")
    assert list(tmp_path.iterdir()) == []

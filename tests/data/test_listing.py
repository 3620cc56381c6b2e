import os
import socket
import unicodedata

import pytest

from ganseg_dist.data.listing import (
    check_file,
    data_files,
    data_folders,
    file_called,
    found_path,
    is_data_name,
    read_json,
)
from ganseg_dist.errors import DataError

NO_DATA = (
    "._scan.nii.gz", ".DS_Store", ".scan.nii.gz.Xy12", "Thumbs.db", "desktop.ini", "scan.nii.gz.part",
    "scan.nii.gz.crdownload", "scan.nii.gz.tmp", "~$list.csv",
)  # fmt: skip
NO_FOLDERS = (".ipynb_checkpoints", "__MACOSX", "@eaDir", "scan.nii.gz.download", "lost+found")


def names(paths):
    return [path.name for path in paths]


def test_data_files_skip_system_files_and_partial_downloads(tmp_path):
    for name in (*NO_DATA, "b.nii.gz", "A.NII"):
        (tmp_path / name).touch()
    for name in (*NO_FOLDERS, "case.nii"):
        (tmp_path / name).mkdir()
    assert names(data_files(tmp_path)) == ["A.NII", "b.nii.gz"]
    assert names(data_folders(tmp_path)) == ["case.nii"]
    assert data_files(tmp_path / "nowhere") == ()


def test_data_files_skip_pipes_and_sockets_but_keep_broken_links(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.nii")
    monkeypatch.chdir(tmp_path)  # a socket's path may be a hundred letters at most
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket.nii")
        (tmp_path / "away.nii").symlink_to(tmp_path / "nowhere")
        (tmp_path / "round.nii").symlink_to(tmp_path / "round.nii")
        assert names(data_files(tmp_path)) == ["away.nii", "round.nii"]


def test_data_folders_are_breadth_first_to_depth(tmp_path):
    (tmp_path / "b" / "c" / "d").mkdir(parents=True)
    (tmp_path / "z").mkdir()
    assert names(data_folders(tmp_path, 2)) == ["b", "z", "c"]
    assert names(data_folders(tmp_path)) == ["b", "z"]


def test_data_folders_follow_links_without_cycles(tmp_path):
    (tmp_path / "root" / "a").mkdir(parents=True)
    (tmp_path / "elsewhere" / "case").mkdir(parents=True)
    (tmp_path / "root" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root" / "a" / "back").symlink_to(tmp_path / "root")
    (tmp_path / "root" / "itself").symlink_to(tmp_path / "root" / "itself")
    assert names(data_folders(tmp_path / "root", 9)) == ["a", "linked", "case"]


@pytest.mark.parametrize("listed", [data_files, lambda folder: list(data_folders(folder, 2))], ids=["files", "folders"])
def test_data_files_and_folders_report_folder_that_cannot_be_listed(tmp_path, monkeypatch, listed):
    def denied(_folder):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("ganseg_dist.data.listing.os.scandir", denied)
    with pytest.raises(DataError, match=r"cannot be listed \(Permission denied\)"):
        listed(tmp_path)


def test_file_called_ignores_letter_case(tmp_path):
    (tmp_path / "Patients.CSV").touch()
    assert file_called(tmp_path, "patients.csv") == tmp_path / "Patients.CSV"
    assert file_called(tmp_path, "labels.json") is None
    (tmp_path / "patients.csv").touch()
    with pytest.raises(DataError, match=r"Patients\.CSV: lies beside patients\.csv; leave one of the two"):
        file_called(tmp_path, "patients.csv")


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda place: os.mkfifo(place), "cannot be opened (is not a regular file)"),
        (lambda place: place.mkdir(), "cannot be opened (is a folder)"),
        (lambda place: place.symlink_to("/nowhere/scan.nii"), "is a link to /nowhere/scan.nii, which is not there"),
        (lambda place: place.symlink_to(place), "cannot be opened (Too many levels of symbolic links)"),
        (lambda place: place.symlink_to("/dev/null"), "cannot be opened (is not a regular file)"),
        (lambda place: None, "no such file"),
    ],
)
def test_check_file_and_read_json_reject_other_than_regular_file(tmp_path, make, problem):
    make(tmp_path / "list.json")
    for read in (check_file, read_json):
        with pytest.raises(DataError) as caught:
            read(tmp_path / "list.json")
        assert str(caught.value).startswith(f"{tmp_path / 'list.json'}: {problem}")


def test_read_json_accepts_bom_and_rejects_deep_nesting(tmp_path):
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(tmp_path / "a.json") == {"a": 1}
    (tmp_path / "a.json").write_text("[" * 100_000)
    with pytest.raises(DataError, match=r"a\.json: is not readable JSON \(it nests too deep\); export it again"):
        read_json(tmp_path / "a.json")


def test_is_data_name_rejects_system_and_partial_names():
    assert all(map(is_data_name, ("scan.nii.gz", "Part 1.png", "tmp.nii", "a.partial.nii")))
    assert not any(map(is_data_name, (*NO_DATA, *NO_FOLDERS)))


def test_found_path_ignores_unicode_normalisation(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "Müller/é 1.nii") for form in ("NFC", "NFD"))
    (tmp_path / decomposed).parent.mkdir()
    (tmp_path / decomposed).touch()
    assert found_path(tmp_path / composed) == found_path(tmp_path / decomposed) == tmp_path / decomposed
    assert found_path(tmp_path / "ü" / "x.nii") == tmp_path / "ü" / "x.nii"

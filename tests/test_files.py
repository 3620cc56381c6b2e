import hashlib
import os

import pytest

from ganseg_dist.errors import DataError, RunError
from ganseg_dist.files import (
    check_regular,
    confined,
    parse_json,
    read_bytes,
    read_json,
    read_text,
    sha256,
    why_not_inside,
)

OUTSIDE = {
    "../x": "leads out of its folder",
    "a/../../x": "leads out of its folder",
    "a/b/../../../x/y/z": "leads out of its folder",
    "..\\x": "leads out of its folder",
    "a\\..\\..\\x": "leads out of its folder",
    "..": "leads out of its folder",
    "/etc/passwd": "is not relative",
    "\\windows\\x": "is not relative",
    "C:\\x": "is not relative",
    "c:x": "is not relative",
    "\\\\server\\share\\x": "is not relative",
    "//server/share/x": "is not relative",
    "a\0b": "holds a character that no path may have",
    "a\nb": "holds a character that no path may have",
    "a\x1bb": "holds a character that no path may have",
    "a\ud800": "holds a character that no path may have",
    "": "names no file",
    ".": "names no file",
    "a/..": "names no file",
}


@pytest.fixture
def pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


@pytest.mark.timeout(10)
@pytest.mark.parametrize("read", [check_regular, read_bytes, read_text, read_json, sha256])
def test_reading_rejects_pipe_and_device(pipe, read):
    with pytest.raises(OSError, match="is not a regular file"):
        read(pipe)
    with pytest.raises(OSError, match="is not a regular file"):
        read(type(pipe)("/dev/zero"))


@pytest.mark.parametrize("read", [check_regular, read_bytes, read_text, read_json, sha256])
def test_reading_raises_os_error_for_folder_and_link_loop(tmp_path, read):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for place in (tmp_path, tmp_path / "loop", tmp_path / "missing"):
        with pytest.raises(OSError, match=r".+"):
            read(place)


def test_reading_follows_link_to_file(tmp_path):
    (tmp_path / "file").write_bytes("Ü".encode())
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert read_text(tmp_path / "link") == "Ü"
    assert sha256(tmp_path / "link") == hashlib.sha256("Ü".encode()).hexdigest()


@pytest.mark.parametrize("text", ["[" * 100_000, "NaN", '{"a": -Infinity}', "9" * 10_000, "{", b"\xff"])
def test_parse_json_raises_value_error_for_invalid_json(text):
    with pytest.raises(ValueError, match=r".+"):
        parse_json(text)


def test_parse_json_reads_all_value_types():
    assert parse_json('{"a": [1, 2.5, null, "x", true]}') == {"a": [1, 2.5, None, "x", True]}


@pytest.mark.parametrize(("relative", "problem"), OUTSIDE.items(), ids=map(repr, OUTSIDE))
def test_confined_rejects_path_outside_folder(tmp_path, relative, problem):
    with pytest.raises(DataError) as caught:
        confined(tmp_path, relative, "list.csv:3", "correct it", follow_links=True)
    assert str(caught.value) == f"list.csv:3: path {relative!r} {problem}; correct it"
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("relative", [None, 3, ["a"], {"a": 1}, b"a"])
def test_confined_rejects_non_text_path(tmp_path, relative):
    with pytest.raises(RunError, match=r"^x\.json: path .* is no text; restore it$"):
        confined(tmp_path, relative, "x.json", "restore it", error=RunError)


@pytest.mark.parametrize(
    ("relative", "path"),
    [
        ("a/b.nii.gz", "a/b.nii.gz"),
        ("./a/b", "a/b"),
        ("a//b", "a/b"),
        ("a/../b", "b"),
        ("Spital Ü/..x/scan (1).nii", "Spital Ü/..x/scan (1).nii"),
        ("...", "..."),
        ("scan#2.nii", "scan#2.nii"),
    ],
)
def test_confined_resolves_path_inside_folder(tmp_path, relative, path):
    assert why_not_inside(relative) is None
    assert confined(tmp_path, relative, "list.csv", "correct it") == tmp_path / path


def test_confined_rejects_link_outside_unless_followed(tmp_path):
    root = tmp_path / "root"
    (root / "inside").mkdir(parents=True)
    (root / "there").symlink_to(tmp_path)
    (root / "here").symlink_to("inside")
    assert confined(root, "here/x", "x.json", "copy it") == root / "here" / "x"
    assert confined(root, "there/x", "x.json", "copy it", follow_links=True) == root / "there" / "x"
    with pytest.raises(DataError, match=r"^x\.json: there/x is a link that leads outside; copy it$"):
        confined(root, "there/x", "x.json", "copy it")


def test_confined_rejects_link_loop(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(DataError, match="is a link that leads outside"):
        confined(tmp_path, "a", "x.json", "copy it")


def test_confined_accepts_folder_that_is_a_link(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "link").symlink_to("root")
    assert confined(tmp_path / "link", "x", "x.json", "copy it") == tmp_path / "link" / "x"

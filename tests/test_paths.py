import pytest

from ganseg_dist.errors import DataError, RunError
from ganseg_dist.paths import confined, why_not_inside

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


@pytest.mark.parametrize(("relative", "problem"), OUTSIDE.items(), ids=map(repr, OUTSIDE))
def test_a_path_that_leads_outside_is_an_error_that_names_its_file_and_what_to_do(tmp_path, relative, problem):
    with pytest.raises(DataError) as caught:
        confined(tmp_path, relative, "list.csv:3", "correct it", follow_links=True)
    assert str(caught.value) == f"list.csv:3: path {relative!r} {problem}; correct it"
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("relative", [None, 3, ["a"], {"a": 1}, b"a"])
def test_what_is_no_text_is_no_path(tmp_path, relative):
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
def test_a_path_inside_is_relative_to_its_folder(tmp_path, relative, path):
    assert why_not_inside(relative) is None
    assert confined(tmp_path, relative, "list.csv", "correct it") == tmp_path / path


def test_a_link_of_others_may_not_lead_outside_and_ones_own_may(tmp_path):
    root = tmp_path / "root"
    (root / "inside").mkdir(parents=True)
    (root / "there").symlink_to(tmp_path)
    (root / "here").symlink_to("inside")
    assert confined(root, "here/x", "x.json", "copy it") == root / "here" / "x"
    assert confined(root, "there/x", "x.json", "copy it", follow_links=True) == root / "there" / "x"
    with pytest.raises(DataError, match=r"^x\.json: there/x is a link that leads outside; copy it$"):
        confined(root, "there/x", "x.json", "copy it")


def test_a_link_in_a_circle_is_an_error(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(DataError, match="is a link that leads outside"):
        confined(tmp_path, "a", "x.json", "copy it")


def test_a_folder_may_itself_be_reached_by_a_link(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "link").symlink_to("root")
    assert confined(tmp_path / "link", "x", "x.json", "copy it") == tmp_path / "link" / "x"

import pytest

from ganseg_dist.digests import Damaged, verify_listed
from ganseg_dist.files import sha256


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "a/../../outside"])
def test_verify_listed_rejects_paths_outside_folder(tmp_path, name):
    (tmp_path / "outside").write_text("x")
    folder = tmp_path / "case"
    folder.mkdir()
    (folder / "inside").write_text("y")
    verify_listed(folder / "case.json", {"inside": sha256(folder / "inside")})
    with pytest.raises(Damaged, match=r"case\.json: path "):
        verify_listed(folder / "case.json", {name: sha256(tmp_path / "outside")})

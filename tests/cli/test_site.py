"""A hospital's folder from the command line: written with safe defaults, checked, and a federation judged."""

import pytest

from ganseg_dist.federation.policy import SitePolicy
from ganseg_dist.federation.site_settings import SiteSettings
from tests.cli.conftest import assert_error
from tests.modes import mode


@pytest.fixture
def site_folder(ganseg, phantom, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert ganseg("site", "init", "north", "--name", "Spital Ü", "--data", phantom).code == 0
    return tmp_path / "north"


def test_site_init_writes_private_folder_with_default_policy(site_folder, phantom):
    assert mode(site_folder) == 0o700
    settings = SiteSettings.load(site_folder / "site.toml")
    assert (settings.name, settings.data, settings.policy) == ("Spital Ü", phantom, SitePolicy())
    text = (site_folder / "site.toml").read_text()
    for field, info in SitePolicy.model_fields.items():
        assert info.description, f"{field} has no comment"
        assert f"\n# {info.description.split()[0]} " in text


def test_site_init_rejects_existing_file_bad_name_and_missing_data(ganseg, site_folder, phantom):
    assert_error(ganseg("site", "init", "north", "--name", "b", "--data", phantom), 2, "site.toml: exists already")
    assert_error(ganseg("site", "init", "other", "--name", "a\nb", "--data", phantom), 2, "--name: is not one line")
    assert_error(ganseg("site", "init", "other", "--name", "b", "--data", "gone"), 2, "--data gone: no such file")
    assert not (site_folder.parent / "other").exists()


def test_site_check_lists_split_and_creates_nothing(ganseg, site_folder):
    done = ganseg("site", "check", "north")
    assert done.code == 0
    assert done.out.splitlines()[1] == "split: 5 train, 1 validation, 2 test; no federation changes it"
    assert [path.name for path in site_folder.iterdir()] == ["site.toml"]
    assert_error(ganseg("site", "check", "gone"), 2, "gone/site.toml: cannot be read", "ganseg site init")
    assert not (site_folder.parent / "gone").exists()


def test_site_check_judges_federation_and_exits_with_1_when_denied(ganseg, site_folder):
    done = ganseg("site", "check", "north", "--recipe", "ganet_seg_debug")
    assert done.code == 0
    assert "allowed  networks: segmenter, generator leave\n" in done.out
    assert "allowed  scores: withheld: 1 validation patient, and policy.minimum_group is 5\n" in done.out
    done = ganseg("site", "check", "north", "--recipe", "ganet_seg_debug", "--set", "federation.local=[]")
    assert done.code == 1
    assert "denied   networks: discriminator would leave" in done.out


def test_site_check_judges_config_of_another_party(ganseg, site_folder):
    (site_folder.parent / "config.json").write_text("{}")
    assert_error(ganseg("site", "check", "north", "--config", "config.json"), 2, "config.json: ")
    both = ganseg("site", "check", "north", "--config", "config.json", "--recipe", "ganet_seg_debug")
    assert_error(both, 2, "--config: is a whole config")

"""Readers are registered by their modules, or by the entry points of other packages."""

from importlib.metadata import EntryPoint

import pytest

from ganseg_dist import registry
from ganseg_dist.data.readers import read_cohort
from ganseg_dist.errors import ConfigError


def test_readers_match_their_modules():
    ours = registry.published_readers()
    assert [name for name, reader in registry.readers().items() if name in ours and reader.name != name] == []
    assert sorted(name for name in registry.readers() if name in ours) == ours


def test_readers_try_manifest_first_and_class_folder_last():
    names = list(registry.readers())
    assert [names[0], names[-1]] == ["manifest", "class_folder"]


@pytest.fixture
def install(monkeypatch):
    """Installs an entry point of a reader, called `stacks`."""

    def one(value: str) -> None:
        point = EntryPoint("stacks", value, registry.READERS_GROUP)
        monkeypatch.setattr(registry, "entry_points", lambda group: [point] if group == registry.READERS_GROUP else [])
        registry.readers.cache_clear()

    yield one
    registry.readers.cache_clear()


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("BratsReader", r"stacks of ganseg\.readers is no instance of .*Reader; fix or uninstall"),
        ("READER", r"stacks of ganseg\.readers names reader brats; give both one name"),
    ],
)
def test_read_cohort_rejects_entry_point_that_is_no_reader_or_has_another_name(phantom, install, value, problem):
    install(f"ganseg_dist.data.readers.brats:{value}")
    with pytest.raises(ConfigError, match=problem):
        read_cohort(phantom)

"""What a package's entry point may be, and the one line where it is something else."""

from importlib.metadata import EntryPoint

import pytest

from ganseg_dist import registry
from ganseg_dist.config import SystemConfig
from ganseg_dist.errors import ConfigError
from ganseg_dist.registry import GROUP, SystemEntry, load, registered

ENTRY = SystemEntry("a:Config", "a:System", "a:RECIPES")


@pytest.fixture
def points(monkeypatch):
    """Installs entry points of the group, in place of what is installed."""
    registered.cache_clear()

    def install(**values):
        found = [EntryPoint(name, value, GROUP) for name, value in values.items()]
        monkeypatch.setattr(registry, "entry_points", lambda group: found)

    yield install
    registered.cache_clear()


def test_registered_lists_third_party_system_last(points):
    points(toy="tests.test_registry:ENTRY")
    assert list(registered()) == ["dl_gan_cnn", "gan_detector", "gan_osmosis", "ganet_seg", "toy"]
    assert registered()["toy"] is ENTRY


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("toy", "no_such_module:ENTRY", r"the entry point toy of ganseg\.systems cannot be loaded \(No module named"),
        ("toy", "tests.test_registry:NOTHING", "cannot be loaded .*NOTHING"),
        ("toy", "tests.test_registry:GROUP", r"is no ganseg_dist\.registry\.SystemEntry; fix or uninstall"),
        ("ganet_seg", "tests.test_registry:ENTRY", "takes a name that another system has; rename it"),
    ],
)
def test_registered_rejects_invalid_entry_point(points, name, value, message):
    points(**{name: value})
    with pytest.raises(ConfigError, match=message):
        registered()


@pytest.mark.parametrize("path", ["no_such_module:Config", "ganseg_dist.config:NoSuchConfig"])
def test_load_rejects_missing_part(path):
    with pytest.raises(ConfigError, match=f"^{path}: cannot be loaded"):
        load(path)


@pytest.mark.parametrize("name", registry.published_systems())
def test_published_entries_load_their_parts(name):
    entry = registered()[name]
    config = load(entry.config)
    assert issubclass(config, SystemConfig)
    assert config.model_fields["name"].default == name
    assert load(entry.system).__name__ in entry.system
    assert [recipe().system.name for recipe in load(entry.recipes)] == [name] * 3
    assert all(space.system == name for space in load(entry.spaces))

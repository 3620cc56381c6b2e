"""sites.json: one key a name, one name a key, and revocations that stay."""

import json
import threading

import pytest

from ganseg_dist.errors import ConfigError, FederationError, RunError
from server.site_registry import FILE, VARIABLE, Registry
from tests.server.registered import fingerprint, registry

NODE = 2**64 - 1
"""Flower's ids take all 64 bits."""


@pytest.fixture
def north(tmp_path):
    return registry(tmp_path, {NODE: "north"})


def test_registry_returns_site_of_node_as_it_was_added(north, tmp_path):
    site = Registry(tmp_path / FILE).of_node(NODE)
    assert (site.name, site.key, site.node, site.revoked) == ("north", fingerprint("north"), NODE, None)
    assert site.label == f"north ({fingerprint('north')[:19]})"


def test_registry_without_file_has_no_sites(tmp_path):
    assert Registry(tmp_path / FILE).sites() == ()


def test_of_node_rejects_node_that_is_not_registered(north):
    with pytest.raises(FederationError, match="registered under no name"):
        north.of_node(1)


@pytest.mark.parametrize("name", ["north", "North", "ＮＯＲＴＨ", "no rth"])
def test_add_rejects_second_key_for_a_name_that_people_would_confuse(north, name):
    before = north.file.read_text()
    with pytest.raises(ConfigError, match=r"is the name of north \(SHA256:"):
        north.add(name, fingerprint("another"), 2)
    assert north.file.read_text() == before


def test_add_rejects_second_name_for_a_key(north):
    with pytest.raises(ConfigError, match="this key is registered as north"):
        north.add("south", fingerprint("north"), 2)


def test_add_again_gives_the_key_its_new_node(north):
    north.add("north", fingerprint("north"), 5)
    assert [(site.name, site.node) for site in north.sites()] == [("north", 5)]


def test_revoked_key_stays_revoked_and_its_name_is_free(north):
    revoked = north.revoke("north")
    assert revoked.revoked is not None
    with pytest.raises(FederationError, match=r"the key of north \(SHA256:.*\) is revoked"):
        north.of_node(NODE)
    for name in ("north", "south"):
        with pytest.raises(ConfigError, match=r"of north was revoked on 20.*makes another pair"):
            north.add(name, fingerprint("north"), NODE)
    north.add("north", fingerprint("new"), 2)
    assert north.of_node(2).name == "north"
    assert [site.revoked is None for site in north.sites()] == [False, True]


def test_revoke_again_returns_the_same_revocation(north):
    assert north.revoke("north") == north.revoke("north")


def test_revoke_names_the_registered_sites_for_an_unknown_name(north):
    with pytest.raises(ConfigError, match="west: no site has this name; the registered ones are north"):
        north.revoke("west")


@pytest.mark.parametrize(
    "content",
    ["", "{}", "[1]", "[" * 10**5, '[{"name": "n"}]', '[{"name": "\\u001b[2J", "key": "x", "node": 1}]'],
)
def test_damaged_registry_is_an_error_and_no_empty_registry(tmp_path, content):
    (tmp_path / FILE).write_text(content)
    with pytest.raises(RunError, match=FILE):
        Registry(tmp_path / FILE).of_node(1)


def test_registrations_at_the_same_time_are_all_kept(tmp_path):
    made = Registry(tmp_path / FILE)
    names = [f"site-{number}" for number in range(8)]
    threads = [
        threading.Thread(target=made.add, args=(name, fingerprint(name), number))
        for number, name in enumerate(names, start=1)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(site.name for site in made.sites()) == names
    assert len(json.loads(made.file.read_text())) == len(names)


def test_server_without_registry_is_rejected(monkeypatch, tmp_path):
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(FederationError, match=f"{VARIABLE}: names no registry"):
        Registry.from_environment()
    monkeypatch.setenv(VARIABLE, str(tmp_path / FILE))
    assert Registry.from_environment().file == tmp_path / FILE

"""register.sh, revoke.sh and sites.sh: the SuperLink's list of keys and the registry of names agree after each."""

import itertools
import sys

import pytest

from ganseg_dist.compat.flower_control import FlowerNode, RequestRejected
from ganseg_dist.errors import ConfigError, RunError
from ganseg_dist.federation.certificates import make_certificates
from ganseg_dist.federation.public_key import PublicKey
from server import registration as module
from server.registration import main, register, revoke, show_sites
from server.site_registry import FILE, Registry


class SuperLink:
    """As Flower's: an unregistered key stays in its list and cannot be registered again."""

    def __init__(self) -> None:
        self.nodes: dict[int, FlowerNode] = {}
        self.answers = True
        self.numbers = itertools.count(2**63)

    def nodes_of(self, connection: str) -> list[FlowerNode]:
        if not self.answers:
            raise ConnectionError("no answer")
        return list(self.nodes.values())

    def register_node(self, connection: str, key: bytes, name: str) -> int:
        if any(node.key == key for node in self.nodes_of(connection)):
            raise RequestRejected("[code: 23] Public key already in use.")
        number = next(self.numbers)
        self.nodes[number] = FlowerNode(number, key, "registered", None)
        return number

    def unregister_node(self, connection: str, number: int) -> None:
        self.set_status(number, "unregistered")

    def set_status(self, number: int, status: str) -> None:
        self.nodes[number] = FlowerNode(number, self.nodes[number].key, status, "2026-11-30T12:00:00+00:00")


@pytest.fixture
def superlink(monkeypatch):
    made = SuperLink()
    for name in ("nodes_of", "register_node", "unregister_node"):
        monkeypatch.setattr(module, name, getattr(made, name))
    monkeypatch.setattr("server.control.address_of", lambda connection: ("127.0.0.1:9", None))
    return made


@pytest.fixture
def keys(tmp_path):
    make_certificates(tmp_path, [], ["north", "south"], days=1)
    return tmp_path


def test_register_gives_a_key_its_name_and_node(superlink, keys):
    site = register(keys, keys / "north.pub", "Klinik Nord")
    key = PublicKey.read(keys / "north.pub")
    assert (site.name, site.key) == ("Klinik Nord", key.fingerprint)
    assert superlink.nodes[site.node].key == key.pem
    assert Registry(keys / FILE).of_node(site.node) == site


def test_register_rejects_a_taken_name_before_the_superlink_knows_the_key(superlink, keys):
    register(keys, keys / "north.pub", "north")
    with pytest.raises(ConfigError, match="North: is the name of north"):
        register(keys, keys / "south.pub", "North")
    assert len(superlink.nodes) == 1


@pytest.mark.parametrize("name", ["", " north", "nor\nth", "n" * 61, "\x1b[2J"])
def test_register_rejects_a_name_that_is_no_site_name(superlink, keys, name):
    with pytest.raises(ConfigError, match="is no site's name"):
        register(keys, keys / "north.pub", name)
    assert superlink.nodes == {}


def test_register_again_completes_a_registration_that_was_killed_before_the_name_was_written(superlink, keys):
    site = register(keys, keys / "north.pub", "north")
    (keys / FILE).unlink()
    assert register(keys, keys / "north.pub", "north").node == site.node


def test_register_again_after_the_loss_of_the_servers_database_gives_the_new_node(superlink, keys):
    register(keys, keys / "north.pub", "north")
    superlink.nodes = {5: FlowerNode(5, b"other", "registered", None)}
    site = register(keys, keys / "north.pub", "north")
    assert site.node in superlink.nodes
    assert [entry.node for entry in Registry(keys / FILE).sites()] == [site.node]


def test_register_rejects_a_key_that_the_superlink_unregistered(superlink, keys):
    superlink.unregister_node("", superlink.register_node("", PublicKey.read(keys / "north.pub").pem, "north"))
    with pytest.raises(ConfigError, match=r"unregistered this key .* another pair"):
        register(keys, keys / "north.pub", "north")
    assert not (keys / FILE).exists()


def test_revoke_ends_the_connection_and_frees_the_name_for_another_key(superlink, keys):
    site = register(keys, keys / "north.pub", "north")
    assert revoke(keys, "north").revoked is not None
    assert superlink.nodes[site.node].status == "unregistered"
    with pytest.raises(ConfigError, match="was revoked"):
        register(keys, keys / "north.pub", "north")
    register(keys, keys / "south.pub", "north")


def test_revoke_is_recorded_while_the_server_does_not_answer_and_completed_by_a_second_call(superlink, keys):
    site = register(keys, keys / "north.pub", "north")
    superlink.answers = False
    with pytest.raises(RunError, match=r"north: is revoked, .* rerun the command .*the server does not answer"):
        revoke(keys, "north")
    assert Registry(keys / FILE).sites()[0].revoked is not None
    superlink.answers = True
    revoke(keys, "north")
    assert superlink.nodes[site.node].status == "unregistered"


def test_sites_are_listed_with_keys_and_states(superlink, keys, capsys):
    make_certificates(keys, [], ["east", "west", "lost"], days=1)
    sites = {name: register(keys, keys / f"{name}.pub", name) for name in ("north", "south", "east", "west")}
    superlink.set_status(sites["north"].node, "online")
    revoke(keys, "south")
    del superlink.nodes[sites["west"].node]
    lost = superlink.register_node("", PublicKey.read(keys / "lost.pub").pem, "")
    show_sites(keys)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["site", "key", "state", "since", "node"]
    rows = {line.split()[0]: line for line in lines[1:]}
    assert all(sites[name].key[:19] in rows[name] for name in sites)
    assert "  connected " in rows["north"]
    assert "  revoked " in rows["south"]
    assert "  not connected " in rows["east"]
    assert "unknown to the server: run register.sh again" in rows["west"]
    assert "no name: run register.sh" in rows["-"]
    assert rows["-"].endswith(str(lost))


def test_sites_are_listed_while_the_server_does_not_answer(superlink, keys, capsys):
    register(keys, keys / "north.pub", "north")
    superlink.answers = False
    with pytest.raises(RunError, match="the server does not answer"):
        show_sites(keys)
    assert "  unknown " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "code", "lines"),
    [
        (("register", "STATE", "north.pub"), 0, "registered: north, with the key SHA256:"),
        (("register", "STATE", "north.pub", "Nord"), 0, "registered: Nord, with the key SHA256:"),
        (("register", "STATE", "north.key"), 2, "error: north.key: is no public key of a node; give the NODE.pub"),
        (("register", "STATE", "none.pub"), 2, "error: none.pub: cannot be read"),
        (("revoke", "STATE", "west"), 2, "error: west: no site has this name; the registered ones are none"),
    ],
)
def test_main_prints_one_line_and_exits_with_a_code(superlink, keys, monkeypatch, capsys, args, code, lines):
    monkeypatch.chdir(keys)
    monkeypatch.setattr(sys, "argv", ["registration", *(str(keys) if arg == "STATE" else arg for arg in args)])
    if code:
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == code
    else:
        main()
    out, err = capsys.readouterr()
    assert (out + err).startswith(lines)
    assert len((out + err).splitlines()) == 1

"""Names, keys and revocation with a real SuperLink and real nodes; a server that is killed while run.sh follows it."""

from dataclasses import dataclass

import pytest

from ganseg_dist.federation.public_key import PublicKey, short_key
from tests.deploy.flower import ANSWERED, SCRIPTS, SHORT, STARTED, Hub, environment, make_sites
from tests.deploy.processes import Running, processes

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(1800)]

HOSPITALS = {"north": "north", "south": "south", "west": "south"}
"""By the registered name, what the hospital calls itself."""
FIELDS = {**SHORT, "train.epochs": 2}


@dataclass
class Registered(Hub):
    """A server with two honest hospitals and one that takes another's name."""

    server: Running | None = None

    def key(self, hospital: str) -> str:
        return PublicKey.read(self.folder / "keys" / f"{hospital}.pub").fingerprint

    def label(self, hospital: str) -> str:
        return f"{hospital} ({short_key(self.key(hospital))})"

    def fails(self, name: str, script: str, *words: object) -> str:
        """What a script that fails prints: one line."""
        running = self.started.start(name, SCRIPTS / script, *words)
        assert running.process.wait(STARTED) != 0
        (line,) = running.output().splitlines()
        return line

    def sites(self) -> dict[str, str]:
        """The lines of sites.sh by name."""
        lines = self.started.run(SCRIPTS / "sites.sh", "state", seconds=STARTED).splitlines()
        return {line.split()[0]: line for line in lines}


@pytest.fixture(scope="module")
def hub(phantom, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub")
    make_sites(folder, phantom, HOSPITALS)
    with processes(folder, **environment()) as started:
        made = Registered(folder, started)
        made.make_certificates(*HOSPITALS, "other")
        made.server = made.start_server()
        for hospital in HOSPITALS:
            assert made.register(hospital).startswith(f"registered: {hospital}, with the key {made.key(hospital)};")
        for hospital in HOSPITALS:
            node = made.start_node(hospital)
            node.wait_for("SuperNode ID: ", seconds=STARTED)
            assert f"this node's key: {made.key(hospital)}" in node.output()
        yield made


def test_register_binds_one_key_to_a_name(hub):
    line = hub.fails("taken", "register.sh", "state", "keys/other.pub", "North")
    assert line.startswith(f"error: North: is the name of {hub.label('north')};")
    line = hub.fails("renamed", "register.sh", "state", "keys/north.pub", "elsewhere")
    assert "this key is registered as north" in line
    hub.register("north")
    listed = hub.sites()
    assert sorted(listed) == ["north", "site", "south", "west"]
    assert all(short_key(hub.key(name)) in listed[name] for name in HOSPITALS)
    assert all("  connected " in listed[name] for name in HOSPITALS)


def test_site_under_name_of_another_and_site_revoked_in_a_round_are_left_out(hub):
    run = hub.train("together", FIELDS)
    run.wait_for("round 1 of 2: asking 2 sites to train", seconds=ANSWERED)
    hub.started.run(SCRIPTS / "revoke.sh", "state", "south", seconds=STARTED)
    run.wait_for("finished: ", seconds=ANSWERED)
    assert run.process.wait(STARTED) == 0
    output = run.output()
    assert f"{hub.label('north')} takes part" in output
    assert f"{hub.label('west')}: takes no part: it calls itself south, and its key is registered as west" in output
    assert "south takes part no more: the key of south" in output
    assert "Traceback" not in output
    record = hub.record("together")
    assert "south" not in record["rounds"][-1]["sites"]
    assert {name: site["revoked"] for name, site in record["sites"].items()} == {"north": False, "south": True}
    assert record["sites"]["north"]["key"] == hub.key("north")
    assert record["sites"]["north"]["versions"] == record["server"]
    south = hub.nodes["south"]
    assert south.process.wait(STARTED) == 1
    assert south.output().rstrip().endswith("or lost the server's database: ask there")
    assert f"the server no longer accepts this node's key {hub.key('south')}" in south.output()
    assert "  revoked " in hub.sites()["south"]


def test_revoked_key_cannot_connect_or_be_registered_again(hub):
    assert "of south was revoked on" in hub.fails("again", "register.sh", "state", "keys/south.pub")
    node = hub.start_node("south")
    assert node.process.wait(STARTED) == 1
    assert "does not accept this node's key" in node.output().splitlines()[-1]
    assert "Traceback" not in node.output()


def test_run_whose_server_is_killed_is_not_called_unstarted_and_resumes(hub):
    run = hub.train("killed", FIELDS, least=1)
    run.wait_for("round 2 of 2: asking 1 sites to train", seconds=ANSWERED)
    hub.server.kill()
    assert run.process.wait(STARTED) != 0
    assert "killed: the connection to the server is lost; the run may be in progress" in run.output().splitlines()[-1]
    assert "not started" not in run.output()
    assert "the server does not answer: 127.0.0.1:" in hub.fails("down", "register.sh", "state", "keys/other.pub")
    hub.server = hub.start_server()
    resumed = hub.train("killed", FIELDS, least=1, log="run-resumed")
    while resumed.process.wait(ANSWERED) != 0 and "is being trained" in resumed.output():
        # until Flower has noticed that the run's server is gone
        resumed = hub.train("killed", FIELDS, least=1, log="run-resumed")
    assert "killed: resumes from round 2 of 2" in resumed.output()
    assert "finished: " in resumed.output()

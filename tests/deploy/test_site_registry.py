"""Names, keys and revocation with a real SuperLink and real nodes; a server that is killed while run.sh follows it."""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from ganseg_dist.data.readers import read_cohort
from ganseg_dist.federation.policy import SitePolicy
from ganseg_dist.federation.public_key import PublicKey, short_key
from ganseg_dist.federation.site_settings import SiteSettings
from tests.deploy.processes import Processes, Running, free_port, processes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

SCRIPTS = Path(__file__).parents[2] / "deploy" / "flower"
HOSPITALS = {"north": "north", "south": "south", "west": "south"}
"""By the registered name, what the hospital calls itself."""
STARTED, ANSWERED = 180, 900
"""Seconds, generous for a busy machine."""
SHORT = "system.gan=false data.test_fraction=0 data.validation_fraction=0.4 train.epochs=2"


@dataclass
class Hub:
    """A server with two honest hospitals and one that takes another's name."""

    folder: Path
    started: Processes
    port: int
    server: Running
    nodes: dict[str, Running]

    def key(self, hospital: str) -> str:
        return PublicKey.read(self.folder / "keys" / f"{hospital}.pub").fingerprint

    def label(self, hospital: str) -> str:
        return f"{hospital} ({short_key(self.key(hospital))})"

    def start_server(self) -> Running:
        server = self.started.start("server", SCRIPTS / "server.sh", "state", "keys", self.port)
        server.wait_for("Uvicorn running on https://", seconds=STARTED)
        return server

    def start_node(self, hospital: str) -> Running:
        words = (hospital, f"keys/{hospital}.key", "keys/ca.crt", f"localhost:{self.port}", free_port())
        return self.started.start(hospital, SCRIPTS / "node.sh", *words)

    def train(self, run: str, least: int, log: str) -> Running:
        words = ("recipe=ganet_seg_debug", f"run-name={run}", f"set={SHORT}", f"least-sites={least}")
        return self.started.start(log, SCRIPTS / "run.sh", "state", *words)

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
    patients = read_cohort(phantom).patients
    for place, (hospital, name) in enumerate(HOSPITALS.items()):
        (folder / hospital).mkdir()
        policy = SitePolicy(minimum_patients=2, minimum_group=1, validation_fraction=0.4, test_fraction=0.0)
        settings = SiteSettings(name=name, data=phantom, patients=patients[place::3], policy=policy)
        (folder / hospital / "site.toml").write_text(settings.to_toml())
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with processes(folder, PATH=path, OMP_NUM_THREADS="1", FLWR_SUPEREXEC_TASK_POLL_INTERVAL="0.1") as started:
        names = [word for hospital in (*HOSPITALS, "other") for word in ("--node", hospital)]
        started.run("ganseg", "certificates", "keys", "--host", "localhost", *names, seconds=STARTED)
        made = Hub(folder, started, free_port(), None, {})
        made.server = made.start_server()
        for hospital in HOSPITALS:
            printed = started.run(SCRIPTS / "register.sh", "state", f"keys/{hospital}.pub", seconds=STARTED)
            assert printed.startswith(f"registered: {hospital}, with the key {made.key(hospital)};")
        for hospital in HOSPITALS:
            made.nodes[hospital] = made.start_node(hospital)
            made.nodes[hospital].wait_for("SuperNode ID: ", seconds=STARTED)
            assert f"this node's key: {made.key(hospital)}" in made.nodes[hospital].output()
        yield made


def test_register_binds_one_key_to_a_name(hub):
    line = hub.fails("taken", "register.sh", "state", "keys/other.pub", "North")
    assert line.startswith(f"error: North: is the name of {hub.label('north')};")
    line = hub.fails("renamed", "register.sh", "state", "keys/north.pub", "elsewhere")
    assert "this key is registered as north" in line
    hub.started.run(SCRIPTS / "register.sh", "state", "keys/north.pub", seconds=STARTED)
    listed = hub.sites()
    assert sorted(listed) == ["north", "site", "south", "west"]
    assert all(short_key(hub.key(name)) in listed[name] for name in HOSPITALS)
    assert all("  connected " in listed[name] for name in HOSPITALS)


def test_impostor_takes_no_part_and_a_site_that_is_revoked_in_a_round_is_left_out(hub):
    run = hub.train("together", 2, "run-together")
    run.wait_for("round 1 of 2: asking 2 sites to train", seconds=ANSWERED)
    hub.started.run(SCRIPTS / "revoke.sh", "state", "south", seconds=STARTED)
    run.wait_for("finished: ", seconds=ANSWERED)
    assert run.process.wait(STARTED) == 0
    output = run.output()
    assert f"{hub.label('north')} takes part" in output
    assert f"{hub.label('west')}: takes no part: it calls itself south, and its key is registered as west" in output
    assert "south takes part no more: the key of south" in output
    assert "Traceback" not in output
    record = json.loads((hub.folder / "state" / "runs" / "together" / "federation.json").read_text())
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
    run = hub.train("killed", 1, "run-killed")
    run.wait_for("round 2 of 2: asking 1 sites to train", seconds=ANSWERED)
    hub.server.kill()
    assert run.process.wait(STARTED) != 0
    assert "killed: the connection to the server is lost; the run may be in progress" in run.output().splitlines()[-1]
    assert "not started" not in run.output()
    assert "the server does not answer: 127.0.0.1:" in hub.fails("down", "register.sh", "state", "keys/other.pub")
    hub.server = hub.start_server()
    resumed = hub.train("killed", 1, "run-resumed")
    while resumed.process.wait(ANSWERED) != 0 and "is being trained" in resumed.output():
        resumed = hub.train("killed", 1, "run-resumed")  # until Flower has noticed that the run's server is gone
    assert "killed: resumes from round 2 of 2" in resumed.output()
    assert "finished: " in resumed.output()

"""A deployment as three hospitals would have it: TLS, registered nodes, real processes, and one that dies."""

import json
import os
import socket
import ssl
import sys
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from ganseg_dist.data.readers import read_cohort
from ganseg_dist.federation.egress_manifest import verify
from ganseg_dist.federation.policy import SitePolicy
from ganseg_dist.federation.site_settings import SiteSettings
from tests.deploy.processes import Processes, Running, free_port, processes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "deploy" / "flower"
HOSPITALS = ("north", "south", "stranger")
STARTED, ANSWERED = 120, 900
"""Seconds, generous for a busy machine."""
SHORT = "system.gan=false data.test_fraction=0 data.validation_fraction=0.4"
"""Channels and regions are left open: the hospitals agree on them."""
SPY = {
    "pyproject.toml": """
[project]
name = "spy"
version = "0.1.0"
description = "Reads what it should not"
license = "Apache-2.0"
[tool.flwr.app]
publisher = "spy"
[tool.flwr.app.components]
serverapp = "spy.server:app"
clientapp = "spy.client:app"
""",
    "spy/__init__.py": "",
    "spy/server.py": """
from flwr.app import Message, RecordDict
from flwr.serverapp import ServerApp
app = ServerApp()
@app.main()
def main(grid, context):
    messages = [Message(RecordDict(), node, "query") for node in grid.get_node_ids()]
    for reply in grid.send_and_receive(messages, timeout=600):
        print("the spy heard:", reply.error.reason if reply.has_error() else "EVERYTHING")
""",
    "spy/client.py": """
from pathlib import Path
from flwr.app import Message, RecordDict
from flwr.clientapp import ClientApp
app = ClientApp()
@app.query()
def query(message, context):
    Path(context.node_config["home"], "spied").write_text("was here")
    return Message(RecordDict(), reply_to=message)
""",
}


@dataclass
class Deployment:
    """A server, two registered nodes that are connected, and one that tried."""

    folder: Path
    started: Processes
    port: int
    nodes: dict[str, Running]

    def home(self, hospital: str) -> Path:
        return self.folder / hospital

    def train(self, run: str, **fields: object) -> Running:
        chosen = " ".join([SHORT, *(f"{name}={value}" for name, value in fields.items())])
        words = ("recipe=ganet_seg_debug", f"run-name={run}", f"set={chosen}", "least-sites=2")
        return self.started.start(f"run-{run}", SCRIPTS / "run.sh", "state", *words)

    def record(self, run: str, name: str) -> dict:
        return json.loads((self.folder / "state" / "runs" / run / name).read_text())


@pytest.fixture(scope="module")
def deployment(phantom, tmp_path_factory):
    folder = tmp_path_factory.mktemp("deployment")
    patients = read_cohort(phantom).patients
    for place, hospital in enumerate(HOSPITALS):
        (folder / hospital).mkdir()
        policy = SitePolicy(minimum_patients=2, minimum_group=1, validation_fraction=0.4, test_fraction=0.0)
        settings = SiteSettings(name=hospital, data=phantom, patients=patients[place::3], policy=policy)
        (folder / hospital / "site.toml").write_text(settings.to_toml())
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    port = free_port()
    with processes(folder, PATH=path, OMP_NUM_THREADS="1", FLWR_SUPEREXEC_TASK_POLL_INTERVAL="0.1") as started:
        names = [word for hospital in HOSPITALS for word in ("--node", hospital)]
        started.run("ganseg", "certificates", "keys", "--host", "localhost", *names, seconds=STARTED)
        server = started.start("server", SCRIPTS / "server.sh", "state", "keys", port)
        server.wait_for("Uvicorn running on https://", seconds=STARTED)
        for hospital in HOSPITALS[:2]:
            started.run(SCRIPTS / "register.sh", "state", f"keys/{hospital}.pub", seconds=STARTED)
        nodes = {
            hospital: started.start(
                hospital, SCRIPTS / "node.sh", hospital, f"keys/{hospital}.key", "keys/ca.crt", f"localhost:{port}",
                free_port(),
            )
            for hospital in HOSPITALS
        }  # fmt: skip
        for hospital in HOSPITALS[:2]:
            nodes[hospital].wait_for("SuperNode ID: ", seconds=STARTED)
        yield Deployment(folder, started, port, nodes)


def test_registered_hospitals_train_and_an_unregistered_one_cannot_connect(deployment):
    run = deployment.train("together", **{"train.epochs": 2})
    run.wait_for("finished: ", seconds=ANSWERED)
    assert run.process.wait(STARTED) == 0
    assert "round 2 of 2: asking 2 sites to train" in run.output()
    assert deployment.record("together", "run.json")["status"] == "finished"
    record = deployment.record("together", "federation.json")
    assert [sorted(round["sites"]) for round in record["rounds"]] == [["north", "south"]] * 2
    assert record["quarantined"] == []
    for hospital in ("north", "south"):
        entries = []
        with (deployment.home(hospital) / "egress.jsonl").open("rb") as lines:
            verdict = verify(lines, entries.append)
        assert not verdict.faults
        assert entries[0].kind == "preflight"
        kinds = [entry.kind for entry in entries if entry.kind in ("train", "evaluate", "finish")]
        assert kinds == ["train", "evaluate", "train", "evaluate", "finish"]
        assert (deployment.home(hospital) / "runs" / "together" / "model" / "config.json").exists()
        assert json.loads((deployment.home(hospital) / "runs" / "together" / "run.json").read_text())["federated"]
    stranger = deployment.nodes["stranger"]
    assert stranger.process.wait(STARTED) != 0
    assert "the server does not accept this node's key SHA256:" in stranger.output().splitlines()[-1]
    assert "Traceback" not in stranger.output()
    assert {entry.name for entry in deployment.home("stranger").iterdir()} <= {"site.toml", "flower"}


def test_superlink_rejects_registration_and_runs_from_other_machines(deployment):
    addresses = [
        address.address
        for card in psutil.net_if_addrs().values()
        for address in card
        if address.family == socket.AF_INET and not address.address.startswith("127.")
    ]
    if not addresses:
        pytest.skip("this machine has no address but its loopback's")
    trust = ssl.create_default_context(cafile=deployment.folder / "keys" / "ca.crt")
    trust.check_hostname = False
    with httpx.Client(verify=trust) as client:
        for path in ("control/register-node", "control/start-run", "runtime/acquire-task"):
            status = {
                host: client.post(f"https://{host}:{deployment.port}/v1/{path}").status_code
                for host in ("127.0.0.1", addresses[0])
            }
            assert status == {"127.0.0.1": httpx.codes.UNSUPPORTED_MEDIA_TYPE, addresses[0]: httpx.codes.FORBIDDEN}


def test_bundle_with_code_is_not_run_by_hospitals(deployment):
    app = deployment.folder / "spy"
    for name, content in SPY.items():
        (app / name).parent.mkdir(parents=True, exist_ok=True)
        (app / name).write_text(content)
    home = {"FLWR_HOME": str(deployment.folder / "state" / "flower"), "FLWR_TELEMETRY_ENABLED": "0"}
    words = ("env", *(f"{name}={value}" for name, value in home.items()), "flwr", "run", app, "federation", "--stream")
    spy = deployment.started.start("spy", *words)
    spy.wait_for("the spy heard:", seconds=ANSWERED, times=2)
    assert spy.output().count("this site runs only the code that it has installed") >= 2
    assert "EVERYTHING" not in spy.output()
    assert not [deployment.home(hospital) for hospital in HOSPITALS if (deployment.home(hospital) / "spied").exists()]


def test_run_fails_when_a_site_declines_and_both_ends_log_it(deployment):
    file = deployment.home("south") / "site.toml"
    good = file.read_text()
    file.write_text(good.replace("minimum_patients = 2", "minimum_patients = 1000"))
    try:
        run = deployment.train("refused", **{"federation.deadline_seconds": 60})
        run.wait_for("takes no part: the site's data do not pass its checks", seconds=ANSWERED)
        run.wait_for("error: federation: ", seconds=ANSWERED)
        assert run.process.wait(STARTED) != 0
    finally:
        file.write_text(good)
    assert "Traceback" not in run.output()
    assert run.output().rstrip().endswith("is not completed, it is failed")
    assert "policy.minimum_patients is 1000" in deployment.nodes["south"].output()
    assert "minimum_patients is 1000" not in run.output()


def test_round_closes_without_a_hospital_that_is_killed_in_it(deployment):
    south = deployment.nodes["south"]
    trained = south.output().count("Receiving: train message")
    run = deployment.train("bereft", **{"train.epochs": 1, "federation.deadline_seconds": 90})
    run.wait_for("bereft: run ", seconds=STARTED)
    south.wait_for("Receiving: train message", seconds=ANSWERED, times=trained + 1)
    south.kill()
    run.wait_for("finished: ", seconds=ANSWERED)
    record = deployment.record("bereft", "federation.json")
    assert [sorted(round["sites"]) for round in record["rounds"]] == [["north"]]
    assert (deployment.home("north") / "runs" / "bereft" / "model").exists()
    assert not (deployment.home("south") / "runs" / "bereft" / "model").exists()

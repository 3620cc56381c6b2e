"""A deployment as three hospitals would have it: TLS, registered nodes, real processes, and one that dies."""

import json
import socket
import ssl

import httpx
import psutil
import pytest

from ganseg_dist.federation.egress_manifest import verify
from tests.deploy.flower import ANSWERED, SHORT, STARTED, Hub, environment, make_sites
from tests.deploy.processes import processes

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(1200)]

HOSPITALS = ("north", "south", "unregistered")
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
        print("the spy received:", reply.error.reason if reply.has_error() else "EVERYTHING")
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


@pytest.fixture(scope="module")
def deployment(phantom, tmp_path_factory):
    """A server, two registered nodes that are connected, and one that tried."""
    folder = tmp_path_factory.mktemp("deployment")
    make_sites(folder, phantom, HOSPITALS)
    with processes(folder, **environment()) as started:
        made = Hub(folder, started)
        made.make_certificates(*HOSPITALS)
        made.start_server()
        for hospital in HOSPITALS[:2]:
            made.register(hospital)
        for hospital in HOSPITALS:
            made.start_node(hospital)
        for hospital in HOSPITALS[:2]:
            made.nodes[hospital].wait_for("SuperNode ID: ", seconds=STARTED)
        yield made


def test_registered_hospitals_train_and_an_unregistered_one_cannot_connect(deployment):
    run = deployment.train("together", {**SHORT, "train.epochs": 2})
    run.wait_for("finished: ", seconds=ANSWERED)
    assert run.process.wait(STARTED) == 0
    assert "round 2 of 2: asking 2 sites to train" in run.output()
    assert deployment.record("together", "run.json")["status"] == "finished"
    record = deployment.record("together")
    assert [sorted(round["sites"]) for round in record["rounds"]] == [["north", "south"]] * 2
    assert record["quarantined"] == []
    for hospital in ("north", "south"):
        entries = []
        with (deployment.site_folder(hospital) / "egress.jsonl").open("rb") as lines:
            verdict = verify(lines, entries.append)
        assert not verdict.faults
        assert entries[0].kind == "preflight"
        kinds = [entry.kind for entry in entries if entry.kind in ("train", "evaluate", "finish")]
        assert kinds == ["train", "evaluate", "train", "evaluate", "finish"]
        assert (deployment.site_folder(hospital) / "runs" / "together" / "model" / "config.json").exists()
        described = json.loads((deployment.site_folder(hospital) / "runs" / "together" / "run.json").read_text())
        assert described["federated"]
    unregistered = deployment.nodes["unregistered"]
    assert unregistered.process.wait(STARTED) != 0
    assert "the server does not accept this node's key SHA256:" in unregistered.output().splitlines()[-1]
    assert "Traceback" not in unregistered.output()
    assert {entry.name for entry in deployment.site_folder("unregistered").iterdir()} <= {"site.toml", "flower"}


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
    env = {"FLWR_HOME": str(deployment.folder / "state" / "flower"), "FLWR_TELEMETRY_ENABLED": "0"}
    words = ("env", *(f"{name}={value}" for name, value in env.items()), "flwr", "run", app, "federation", "--stream")
    spy = deployment.started.start("spy", *words)
    spy.wait_for("the spy received:", seconds=ANSWERED, times=2)
    assert spy.output().count("this site runs only the code that it has installed") >= 2
    assert "EVERYTHING" not in spy.output()
    assert not [hospital for hospital in HOSPITALS if (deployment.site_folder(hospital) / "spied").exists()]


def test_run_fails_when_a_site_declines_and_both_ends_log_it(deployment):
    file = deployment.site_folder("south") / "site.toml"
    good = file.read_text()
    file.write_text(good.replace("minimum_patients = 2", "minimum_patients = 1000"))
    try:
        run = deployment.train("declined", {**SHORT, "federation.deadline_seconds": 60})
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
    run = deployment.train("one-hospital", {**SHORT, "train.epochs": 1, "federation.deadline_seconds": 90})
    run.wait_for("one-hospital: run ", seconds=STARTED)
    south.wait_for("Receiving: train message", seconds=ANSWERED, times=trained + 1)
    south.kill()
    run.wait_for("finished: ", seconds=ANSWERED)
    record = deployment.record("one-hospital")
    assert [sorted(round["sites"]) for round in record["rounds"]] == [["north"]]
    assert (deployment.site_folder("north") / "runs" / "one-hospital" / "model").exists()
    assert not (deployment.site_folder("south") / "runs" / "one-hospital" / "model").exists()

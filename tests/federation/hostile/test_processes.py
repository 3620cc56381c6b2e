"""A hostile site and a hostile server, processes of their own over TLS, against a deployment as hospitals have it."""

import json
import sys
from collections import Counter
from pathlib import Path

import pytest

from ganseg_dist.federation.certificates import make_certificates
from ganseg_dist.federation.egress_manifest import verify
from ganseg_dist.federation.protocol import EVALUATE, FINGERPRINT, FINISH, TRAIN
from tests.deploy.flower import ANSWERED, ROOT, STARTED, Hub, environment, make_sites
from tests.deploy.processes import Running, processes
from tests.federation.hostile.site_attacks import BY_KIND, CONFIG

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(3000)]

MUTATIONS = 1000
KEYS = 64
"""Of the hostile site that join, and that do not: each sends one attack of a kind in a federation of one round."""
FEDERATIONS = -(-(MUTATIONS + max(map(len, BY_KIND.values()))) // KEYS)
SITES = ("north", "south", "west")
LIMIT = 30
"""The policy's answers per round."""
ATTACKED = 2400
"""Seconds, generous for a busy machine."""
FIELDS = {**CONFIG, "train.epochs": 1, "federation.quorum": 0.01, "federation.deadline_seconds": 300}
REGISTER = """
import sys
from pathlib import Path
from server.registration import register
for name in sys.argv[2:]:
    register(Path(sys.argv[1]), Path("keys") / f"{name}.pub", name)
"""
BUNDLE = """
[project]
name = "attacks"
version = "0.1.0"
description = "A hostile server"
license = "Apache-2.0"
[tool.flwr.app]
publisher = "hostile"
[tool.flwr.app.components]
serverapp = "tests.federation.hostile.server:app"
clientapp = "clients.app:app"
[tool.flwr.app.config]
folder = "{folder}"
sites = "north,west"
victims = "north"
mutations = {mutations}
"""


class Attacked(Hub):
    """A server with all keys registered, and the folders of three hospitals."""

    @property
    def server(self) -> str:
        return f"localhost:{self.port}"

    def start_keys(self, module: str, *words: str) -> Running:
        """A process with many keys, once they are connected."""
        name = f"tests.federation.hostile.{module}"
        process = self.started.start(module, sys.executable, "-u", "-m", name, self.folder, self.server, *words)
        process.wait_for("connected", seconds=STARTED)
        return process


@pytest.fixture(scope="module")
def deployment(phantom, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    make_sites(folder, phantom, SITES, answers_per_round=LIMIT)
    names = {role: [f"{role}-{number}" for number in range(KEYS)] for role in ("members", "nonmembers")}
    (folder / "hostile.json").write_text(json.dumps(names))
    keys = [*SITES, *names["members"], *names["nonmembers"]]
    make_certificates(folder / "keys", ["localhost"], keys, days=2)
    with processes(folder, **environment(), PYTHONPATH=str(ROOT), GANSEG_STORE=str(folder / "store")) as started:
        attacked = Attacked(folder, started)
        attacked.start_server()
        flower_home = f"FLWR_HOME={folder / 'state' / 'flower'}"
        started.run("env", flower_home, sys.executable, "-c", REGISTER, folder / "state", *keys, seconds=ANSWERED)
        yield attacked


def test_federations_go_on_beside_hostile_site(deployment):
    """Every listed attack and a thousand mutations of every kind of reply."""
    honest, hostile = deployment.start_keys("honest", "north", "south"), deployment.start_keys("site")
    output, recorded = "", set()
    for number in range(FEDERATIONS):
        run = deployment.train(f"f{number}", FIELDS)
        assert run.process.wait(ANSWERED) == 0, run.output()
        output += run.output()
        record = deployment.record(f"f{number}")
        assert {"north", "south"} <= record["rounds"][0]["sites"].keys()
        recorded |= {(f"f{number}", each["site"], each["kind"]) for each in record["quarantined"]}
    honest.kill()
    hostile.kill()

    attacks_sent = [json.loads(line) for line in (deployment.folder / "attacks.jsonl").read_text().splitlines()]
    sent = Counter(each["kind"] for each in attacks_sent)
    named = {kind: {each["attack"] for each in attacks_sent if each["kind"] == kind} for kind in BY_KIND}
    for kind, attacks in BY_KIND.items():
        assert attacks.keys() <= named[kind]
        assert sent[kind] >= len(attacks) + MUTATIONS
    short = {FINGERPRINT: "fingerprint", TRAIN: "train", EVALUATE: "evaluate"}
    for each in attacks_sent:
        if each["attack"] in BY_KIND[each["kind"]] and each["kind"] in short:
            assert (each["run"], each["site"], short[each["kind"]]) in recorded, each
    assert output.count("takes no part: ") >= MUTATIONS / 2
    assert output.count("saved no model: ") >= MUTATIONS / 2
    for kind in short.values():
        assert len([each for each in recorded if each[2] == kind]) > MUTATIONS / 2
    everything = output + (deployment.folder / "server.log").read_text()
    assert "Traceback" not in everything
    assert "all/good" not in everything
    assert all(line.isprintable() for line in output.splitlines())
    assert_manifests_hold(deployment.folder, ("north", "south"))


def test_sites_send_nothing_against_policy_to_hostile_server(deployment):
    """Every listed attack and a thousand mutations of every kind of instruction.

    Flower's own node, which starts a process for every message, gets each listed attack once.
    """
    before = entries(deployment.folder / "north")
    app = deployment.folder / "attacks"
    app.mkdir()
    (app / "pyproject.toml").write_text(BUNDLE.format(folder=deployment.folder, mutations=MUTATIONS))
    honest = deployment.start_keys("honest", "north")
    west = deployment.start_node("west")
    west.wait_for("SuperNode ID: ", seconds=STARTED)
    flower_home = f"FLWR_HOME={deployment.folder / 'state' / 'flower'}"
    attack = deployment.started.start("attack", "env", flower_home, "flwr", "run", app, "federation", "--stream")
    attack.wait_for("west: " + FINISH, seconds=ATTACKED)
    attack.process.wait(STARTED)
    honest.kill()
    west.kill()

    outcome = json.loads((deployment.folder / "outcome.json").read_text())
    for replies in outcome["north"].values():
        assert sum(replies.values()) > MUTATIONS
        assert replies.get("none", 0) == 0
        assert sum(replies.values()) - replies.get("answer", 0) > MUTATIONS / 2
    for replies in outcome["west"].values():
        assert replies.get("none", 0) == 0
        assert replies.get("answer", 0) <= 1, "the honest one"
    for site in ("north", "west"):
        log = (deployment.folder / site / "site.log").read_text()
        assert "Traceback" not in log
        assert all(line.isprintable() for line in log.splitlines())
        assert not [line for line in log.splitlines() if not line.startswith("    ") and "all/good" in line[:60]]
    assert "Traceback" not in honest.output() + west.output()
    assert_manifests_hold(deployment.folder, ("north", "west"))
    kinds = Counter(entry.kind for entry in entries(deployment.folder / "north")[len(before) :])
    replies = sum((Counter(each) for each in outcome["north"].values()), Counter())
    assert kinds.total() == replies.total(), "every attack is recorded"
    assert kinds["error"] == replies.total() - replies["answer"]
    assert kinds["train"] + kinds["evaluate"] <= 2 * LIMIT


def entries(site: Path) -> list:
    found: list = []
    with (site / "egress.jsonl").open("rb") as lines:
        assert not verify(lines, found.append).faults
    return found


def assert_manifests_hold(folder: Path, sites: tuple[str, ...]) -> None:
    """Of every federation no round leaves but the one that was agreed on, and no round too often."""
    for site in sites:
        updates = Counter((entry.run, entry.round) for entry in entries(folder / site) if entry.kind == "train")
        assert {number for _, number in updates} <= {1}
        assert max(updates.values()) <= LIMIT

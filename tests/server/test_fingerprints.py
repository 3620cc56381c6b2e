"""Before the first round every site sends a fingerprint: histograms of its patients over coarse bins."""

import json
from pathlib import Path

import pytest
from flwr.app import Context, Message

from clients.app import app
from ganseg_dist.config import override
from ganseg_dist.planning.request import TrainingRequest
from ganseg_dist.runs import Run
from ganseg_dist.systems import recipe
from server.simulation import Simulation, simulate
from tests.trackers import WarningTracker

pytestmark = pytest.mark.usefixtures("own_runs")

SHORT = {"system.gan": False, "train.epochs": 1, "data.test_fraction": 0.3}


def simulated(phantom: Path, answer, **changes: object) -> tuple[Run, WarningTracker]:
    shown = WarningTracker()
    config = override(recipe("ganet_seg_debug"), SHORT | changes)
    request = TrainingRequest(config, phantom, run_name="f", local=True)
    return simulate(Simulation(request, "3"), answer, tracker=shown), shown


def kinds_sent(run: Run, site: str) -> set[str]:
    lines = (run.folder / "sites" / site / "egress.jsonl").read_text().splitlines()
    return {json.loads(line)["kind"] for line in lines}


def test_simulate_stores_fingerprints_of_sites(phantom):
    run, _ = simulated(phantom, app)
    fingerprints = json.loads((run.folder / "fingerprint.json").read_text())
    assert sorted(fingerprints["sites"]) == ["site1", "site2", "site3"]
    assert "fingerprint" in kinds_sent(run, "site1")


@pytest.mark.slow
def test_simulate_trains_site_without_fingerprint(phantom):
    def answer(message: Message, context: Context) -> Message:
        if context.node_id == 3 and message.metadata.message_type == "query.fingerprint":
            (Path(str(context.node_config["home"])) / "site.toml").write_text("{")
            reply = app(message, context)
            (Path(str(context.node_config["home"])) / "site.toml").write_text(kept[0])
            return reply
        if context.node_id == 3 and not kept:
            kept.append((Path(str(context.node_config["home"])) / "site.toml").read_text())
        return app(message, context)

    kept: list[str] = []
    run, shown = simulated(phantom, answer)
    fingerprints = json.loads((run.folder / "fingerprint.json").read_text())
    assert sorted(fingerprints["sites"]) == ["site1", "site2"]
    assert [line for line in shown.warnings if line.startswith("site3: its data are not compared")]
    rounds = json.loads((run.folder / "federation.json").read_text())["rounds"]
    assert sorted(rounds[0]["sites"]) == ["site1", "site2", "site3"]


@pytest.mark.slow
def test_simulate_requests_no_fingerprint_with_privacy(phantom):
    run, _ = simulated(phantom, app, **{"train.ema": None, "federation.privacy.epsilon": 5000.0})
    assert not (run.folder / "fingerprint.json").exists()
    assert "fingerprint" not in kinds_sent(run, "site1")

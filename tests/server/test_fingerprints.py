"""Before the first round every site tells how its patients spread over coarse bins."""

import json
from pathlib import Path

import pytest
from flwr.app import Context, Message

from clients.app import app
from ganseg_dist.config import override
from ganseg_dist.engine.tracker import Tracker
from ganseg_dist.planning.request import TrainingRequest
from ganseg_dist.runs import Run
from ganseg_dist.systems import recipe
from server.simulation import Simulation, simulate

pytestmark = pytest.mark.usefixtures("own_runs")

SHORT = {"system.gan": False, "train.epochs": 1, "data.test_fraction": 0.3}


class Warned(Tracker):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def warn(self, step: int, text: str) -> None:
        self.lines.append(text)


def simulated(phantom: Path, answer, **changes: object) -> tuple[Run, Warned]:
    shown = Warned()
    config = override(recipe("ganet_seg_debug"), SHORT | changes)
    request = TrainingRequest(config, phantom, run_name="f", local=True)
    return simulate(Simulation(request, "3"), answer, tracker=shown), shown


def kinds_sent(run: Run, site: str) -> set[str]:
    lines = (run.folder / "sites" / site / "egress.jsonl").read_text().splitlines()
    return {json.loads(line)["kind"] for line in lines}


def test_the_server_keeps_what_the_sites_told(phantom):
    run, _ = simulated(phantom, app)
    told = json.loads((run.folder / "fingerprint.json").read_text())
    assert sorted(told["sites"]) == ["site1", "site2", "site3"]
    assert "fingerprint" in kinds_sent(run, "site1")


def test_a_site_that_tells_nothing_is_not_compared_and_takes_part(phantom):
    def answer(message: Message, context: Context) -> Message:
        if context.node_id == 3 and message.metadata.message_type == "query.fingerprint":
            (Path(str(context.node_config["home"])) / "site.json").write_text("{")
            reply = app(message, context)
            (Path(str(context.node_config["home"])) / "site.json").write_text(kept[0])
            return reply
        if context.node_id == 3 and not kept:
            kept.append((Path(str(context.node_config["home"])) / "site.json").read_text())
        return app(message, context)

    kept: list[str] = []
    run, shown = simulated(phantom, answer)
    told = json.loads((run.folder / "fingerprint.json").read_text())
    assert sorted(told["sites"]) == ["site1", "site2"]
    assert [line for line in shown.lines if line.startswith("site3: its data are not compared")]
    rounds = json.loads((run.folder / "federation.json").read_text())["rounds"]
    assert sorted(rounds[0]["sites"]) == ["site1", "site2", "site3"]


def test_nobody_asks_where_numbers_stay_at_home(phantom):
    run, _ = simulated(phantom, app, **{"train.ema": None, "federation.privacy.epsilon": 5000.0})
    assert not (run.folder / "fingerprint.json").exists()
    assert "fingerprint" not in kinds_sent(run, "site1")

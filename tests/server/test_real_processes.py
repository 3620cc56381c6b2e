"""Sites in processes of their own: one dies and returns, one hangs."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from flwr.app import Context, Message

from clients.app import app
from ganseg_dist.config import override
from ganseg_dist.planning.request import TrainingRequest
from ganseg_dist.systems import recipe
from server.simulation import Simulation, simulate

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_runs")]

SHORT = {"system.gan": False, "train.epochs": 3, "data.test_fraction": 0.3}


def sites_of_each_round(phantom: Path, misbehave: Callable[[Path], None], **changes: object) -> list[list[str]]:
    """Three sites in Ray tasks, of which site3 does this before it trains."""

    def answer(message: Message, context: Context) -> Message:
        site_folder = Path(str(context.node_config["home"]))
        if site_folder.name == "site3" and message.metadata.message_type == "train":
            misbehave(site_folder)
        return app(message, context)

    config = override(recipe("ganet_seg_debug"), SHORT | changes)
    run = simulate(Simulation(TrainingRequest(config, phantom, run_name="f"), "3"), answer)
    return [sorted(record["sites"]) for record in json.loads((run.folder / "federation.json").read_text())["rounds"]]


def test_simulate_readmits_site_after_its_process_dies(phantom):
    def die_once(site_folder: Path) -> None:
        marker = site_folder / "died"
        if not marker.exists():
            marker.touch()
            os._exit(1)

    all_sites = ["site1", "site2", "site3"]
    assert sites_of_each_round(phantom, die_once) == [["site1", "site2"], all_sites, all_sites]


def test_simulate_continues_without_hanging_site(phantom):
    def hang(site_folder: Path) -> None:
        time.sleep(3600)

    rounds = sites_of_each_round(phantom, hang, **{"federation.deadline_seconds": 60.0})
    assert rounds == [["site1", "site2"]] * 3

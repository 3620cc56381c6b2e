"""`flwr run .` gives the same weights as `ganseg federate`."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from clients.app import app
from ganseg_dist.config import override
from ganseg_dist.federation.egress_manifest import verify
from ganseg_dist.planning.request import TrainingRequest
from ganseg_dist.runs import Run
from ganseg_dist.systems import recipe
from server.simulation import Simulation, simulate
from tests.deploy.processes import free_port, processes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
CHANGES = {"system.gan": "false", "train.epochs": "2", "data.test_fraction": "0.3"}
STARTED, ANSWERED = 120, 600
"""Seconds, generous for a busy machine."""
WEIGHTS = "networks.safetensors"


@pytest.fixture
def flower(tmp_path, store):
    port = free_port()
    environment = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "FLWR_HOME": str(tmp_path / "flower"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "GANSEG_RUNS": str(tmp_path / "runs"),
        "GANSEG_STORE": str(store),
    }
    (tmp_path / "flower").mkdir()
    connection = f'[superlink.here]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
    (tmp_path / "flower" / "config.toml").write_text(f'[superlink]\ndefault = "here"\n{connection}')
    with processes(tmp_path, **environment) as started:
        server = started.start("superlink", "flower-superlink", "--simulation", "--insecure", "--port", port)
        server.wait_for("Uvicorn running on ", seconds=STARTED)
        yield started


def without_times(run: Run) -> list[dict[str, Any]]:
    rounds = json.loads((run.folder / "federation.json").read_text())["rounds"]
    return [
        {name: value for name, value in record.items() if name not in ("started", "seconds")}
        | {"sites": {name: site | {"seconds": None} for name, site in record["sites"].items()}}
        for record in rounds
    ]


def run_config(data: Path, name: str) -> str:
    changes = " ".join(f"{field}={value}" for field, value in CHANGES.items())
    return f"recipe='ganet_seg_debug' run-name='{name}' data='{data}' sites=2 set='{changes}'"


def test_flwr_run_trains_the_same_weights_as_the_in_process_simulation(flower, phantom, tmp_path, store, monkeypatch):
    nodes = "num-supernodes=2 client-resources-num-cpus=1"
    args = ("--stream", "--run-config", run_config(phantom, "flower"), "--federation-config", nodes)
    flower.start("run", "flwr", "run", ROOT, *args).wait_for("finished: ", seconds=ANSWERED)
    flowers = Run(tmp_path / "runs" / "flower")
    assert flowers.finished
    for site in ("site1", "site2"):
        with (flowers.folder / "sites" / site / "egress.jsonl").open("rb") as lines:
            assert not verify(lines, lambda entry: None).faults
    monkeypatch.setenv("GANSEG_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("GANSEG_STORE", str(store))
    config = override(recipe("ganet_seg_debug"), CHANGES)
    in_process = simulate(Simulation(TrainingRequest(config, phantom, run_name="ours", local=True), "2"), app)
    assert in_process.config() == flowers.config()
    expected, found = load_file(in_process.model / WEIGHTS), load_file(flowers.model / WEIGHTS)
    assert expected.keys() == found.keys()
    assert all(np.array_equal(expected[name], found[name]) for name in expected)
    assert without_times(in_process) == without_times(flowers)


def test_flwr_run_rejects_another_number_of_nodes_than_of_sites(flower, phantom):
    args = ("--stream", "--run-config", run_config(phantom, "odd"), "--federation-config", "num-supernodes=3")
    run = flower.start("run", "flwr", "run", ROOT, *args)
    run.wait_for("give --federation-config num-supernodes=2", seconds=ANSWERED)
    (line,) = [line for line in run.output().splitlines() if line.startswith("error: ")]
    assert line.startswith("error: num-supernodes: Flower simulates 3 and the federation has 2 sites")

"""A federation of one site equals a local run bit for bit: every system, stage and local network."""

import json
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from clients.app import app
from ganseg_dist.config import RunConfig, override
from ganseg_dist.engine.checkpoint import FolderCheckpoints
from ganseg_dist.engine.tracker import Tracker
from ganseg_dist.planning.request import TrainingRequest
from ganseg_dist.runs import Run, runs_root
from ganseg_dist.systems import recipe
from server.simulation import Simulation, simulate
from tests.contract import members
from tests.contract.conftest import SHORT
from tests.trackers import WarningTracker

pytestmark = pytest.mark.usefixtures("own_runs")


def simulated(phantom: Path, config: RunConfig, name: str, sites: str = "1", shown: Tracker | None = None) -> Path:
    """A federation's run folder."""
    request = TrainingRequest(config, phantom, run_name=name, local=True)
    return simulate(Simulation(request, sites), app, tracker=shown or Tracker()).folder


def sites_own(folder: Path, site: str) -> dict[str, torch.Tensor]:
    return load_file(folder / "sites" / site / "runs" / folder.name / "model" / "networks.safetensors")


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def test_federation_of_one_site_matches_local_ganet_seg(phantom, undisturbed):
    config = override(recipe("ganet_seg_debug"), SHORT)
    folder = simulated(phantom, config, "one")
    assert_same(sites_own(folder, "site1"), members.final_weights(undisturbed))


@pytest.mark.slow
def test_federation_of_one_site_matches_local_run_of_every_system(phantom, other):
    config, _, local = other
    folder = simulated(phantom, config, "one")
    assert_same(sites_own(folder, "site1"), members.final_weights(local))


def test_federation_keeps_discriminator_at_site(phantom):
    config = override(recipe("ganet_seg_debug"), SHORT)
    folder = simulated(phantom, config, "two", "2")
    one, other, server = sites_own(folder, "site1"), sites_own(folder, "site2"), members.final_weights(folder)
    for name in server:
        local = name.startswith("discriminator")
        assert torch.equal(one[name], other[name]) != local, name
        assert torch.equal(one[name], server[name]) != local, name
    manifest = (folder / "sites" / "site1" / "egress.jsonl").read_text()
    assert "networks.generator" in manifest
    assert "discriminator." not in manifest.replace('"healthy/discriminator', "")


@pytest.mark.slow
def test_federation_resumes_bit_for_bit_after_server_is_killed(phantom):
    config = override(recipe("ganet_seg_debug"), SHORT)
    undisturbed = simulated(phantom, config, "whole", "2")
    assert members.exit_code_of(members.federate_until_save, phantom, config, "killed", 2) == -signal.SIGKILL
    resumed = simulated(phantom, config, "killed", "2")
    assert_same(members.final_weights(resumed), members.final_weights(undisturbed))
    for site in ("site1", "site2"):
        assert_same(sites_own(resumed, site), sites_own(undisturbed, site))


@pytest.mark.slow
def test_federation_resumes_bit_for_bit_when_server_checkpoint_is_damaged(phantom):
    config = override(recipe("ganet_seg_debug"), SHORT | {"train.epochs": 3, "system.gan": False})
    undisturbed = simulated(phantom, config, "whole", "2")
    assert members.exit_code_of(members.federate_until_save, phantom, config, "killed", 2) == -signal.SIGKILL
    checkpoints = FolderCheckpoints(Run(undisturbed.parent / "killed").checkpoints)
    first, second = checkpoints.all()[-2:]
    (second / "server.json").write_text("{}")
    shown = WarningTracker()
    resumed = simulated(phantom, config, "killed", "2", shown)
    (warning,) = [line for line in shown.warnings if "is damaged" in line]
    assert warning.startswith(f"{second / 'server.json'}: is damaged (its digest differs); resuming from the check")
    assert warning.endswith(first.name)
    assert_same(members.final_weights(resumed), members.final_weights(undisturbed))
    for site in ("site1", "site2"):
        assert_same(sites_own(resumed, site), sites_own(undisturbed, site))


@pytest.mark.slow
def test_federation_resumes_when_state_of_site_is_damaged(phantom, caplog):
    config = override(recipe("ganet_seg_debug"), SHORT | {"train.epochs": 3, "system.gan": False})
    assert members.exit_code_of(members.federate_until_save, phantom, config, "killed", 2) == -signal.SIGKILL
    runs = runs_root() / "killed" / "sites"
    states = FolderCheckpoints(runs / "site1" / "runs" / "killed" / "checkpoints").all()
    assert len(states) == 3, "a state that the server may go back to was dropped"
    (states[1] / "residual.safetensors").write_bytes(b"")
    folder = simulated(phantom, config, "killed", "2")
    warnings = [line for line in caplog.messages if "is damaged" in line]
    assert [line.split(":")[0] for line in warnings] == [str(states[1] / "residual.safetensors")]
    rounds = json.loads((folder / "federation.json").read_text())["rounds"]
    assert [list(record["sites"]) for record in rounds] == [["site1", "site2"]] * 3


@pytest.mark.slow
def test_federation_rewrites_same_site_models_after_kill_at_end(phantom):
    config = override(recipe("ganet_seg_debug"), SHORT)
    folder = simulated(phantom, config, "end", "2")
    before = {site: sites_own(folder, site) for site in ("site1", "site2")}
    Run(folder).describe(status="training")
    simulated(phantom, config, "end", "2")
    for site, kept in before.items():
        assert_same(sites_own(folder, site), kept)
        assert not (folder / "sites" / site / "site.log").exists()

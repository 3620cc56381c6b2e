"""A federation of one hospital is a run at home, to the bit: every system, every stage, whatever stays home."""

import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from clients.app import app
from ganseg_dist.config import RunConfig, override
from ganseg_dist.engine.checkpoint import FolderCheckpoints
from ganseg_dist.recipes import recipe
from ganseg_dist.runners.session import TrainingRequest
from ganseg_dist.runs import Run
from server.simulation import Rehearsal, rehearse
from tests.contract import members
from tests.contract.conftest import SHORT

pytestmark = pytest.mark.usefixtures("own_runs")


def rehearsed(phantom: Path, config: RunConfig, name: str, sites: str = "1") -> Path:
    """A federation's run folder."""
    return rehearse(Rehearsal(TrainingRequest(config, phantom, run_name=name, local=True), sites), app).folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    newest = FolderCheckpoints(folder / "checkpoints").latest()
    assert newest is not None
    return load_file(newest / "networks.safetensors")


def sites_own(folder: Path, site: str) -> dict[str, torch.Tensor]:
    return load_file(folder / "sites" / site / "runs" / folder.name / "model" / "networks.safetensors")


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def test_one_hospital_trains_ganet_seg_as_at_home(phantom, undisturbed):
    config = override(recipe("ganet_seg_debug"), SHORT)
    folder = rehearsed(phantom, config, "one")
    assert_same(sites_own(folder, "site1"), weights(undisturbed))


def test_one_hospital_trains_every_other_system_as_at_home(phantom, other):
    config, _, at_home = other
    folder = rehearsed(phantom, config, "one")
    assert_same(sites_own(folder, "site1"), weights(at_home))


def test_a_discriminator_never_leaves(phantom):
    config = override(recipe("ganet_seg_debug"), SHORT)
    folder = rehearsed(phantom, config, "two", "2")
    one, other, server = sites_own(folder, "site1"), sites_own(folder, "site2"), weights(folder)
    for name in server:
        at_home = name.startswith("discriminator")
        assert torch.equal(one[name], other[name]) != at_home, name
        assert torch.equal(one[name], server[name]) != at_home, name
    manifest = (folder / "sites" / "site1" / "egress.jsonl").read_text()
    assert "networks.generator" in manifest
    assert "discriminator." not in manifest.replace('"healthy/discriminator', "")


def test_a_server_that_was_killed_goes_on_to_the_same_weights(phantom):
    config = override(recipe("ganet_seg_debug"), SHORT)
    undisturbed = rehearsed(phantom, config, "calm", "2")
    assert members.ended(members.federate_until_save, phantom, config, "hurt", 2) == -signal.SIGKILL
    resumed = rehearsed(phantom, config, "hurt", "2")
    assert_same(weights(resumed), weights(undisturbed))
    for site in ("site1", "site2"):
        assert_same(sites_own(resumed, site), sites_own(undisturbed, site))


def test_a_server_that_was_killed_at_the_very_end_gives_every_site_the_same_model_again(phantom):
    config = override(recipe("ganet_seg_debug"), SHORT)
    folder = rehearsed(phantom, config, "end", "2")
    before = {site: sites_own(folder, site) for site in ("site1", "site2")}
    Run(folder).describe(status="training")
    rehearsed(phantom, config, "end", "2")
    for site, kept in before.items():
        assert_same(sites_own(folder, site), kept)
        assert not (folder / "sites" / site / "site.log").exists()

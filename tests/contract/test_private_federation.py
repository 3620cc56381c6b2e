"""Differential privacy in whole federations: nothing but noised weights leaves, and no round is released twice."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import server.rounds
import server.simulation
from ganseg_dist.config import override
from ganseg_dist.errors import ConfigError, FederationError
from ganseg_dist.runs import training_run
from ganseg_dist.systems import recipe
from tests.contract.conftest import SHORT
from tests.contract.test_federation import simulated

pytestmark = pytest.mark.usefixtures("own_runs")

BUDGET = 5000.0
"""Of no use to anybody, and with it the weights stay finite."""


def private(**changes: object):
    promised = {"train.ema": None, "federation.privacy.epsilon": BUDGET, "federation.privacy.clip_norm": 0.1}
    return override(recipe("ganet_seg_debug"), {**SHORT, **promised, **changes})


@pytest.mark.parametrize(
    ("where", "strategy", "encoding"),
    [("server", "fedavg", "fp32"), ("site", "fedavg", "fp16"), ("server", "fedadam", "fp32")],
)
def test_no_number_but_noised_weights_leaves(phantom, where, strategy, encoding):
    changes = {"privacy.where": where, "strategy": strategy, "encoding": encoding}
    config = private(**{f"federation.{name}": value for name, value in changes.items()})
    folder = simulated(phantom, config, "p", "2")
    told = json.loads((folder / "federation.json").read_text())
    assert told["quarantined"] == []
    assert all(record["scores"] == {} for record in told["rounds"])
    spent = [record["epsilon"] for record in told["rounds"]]
    assert spent == sorted(spent)
    assert spent[-1] == pytest.approx(BUDGET, rel=1e-3)
    for site in ("site1", "site2"):
        lines = [json.loads(line) for line in (folder / "sites" / site / "egress.jsonl").read_text().splitlines()]
        assert "evaluate" not in {line["kind"] for line in lines}
        trained = [line["metrics"] for line in lines if line["kind"] == "train"]
        assert trained == [{"num-examples": 1}] * len(told["rounds"])


@pytest.mark.slow
def test_a_server_killed_after_a_release_goes_on_from_that_release(phantom, monkeypatch):
    finish, finished = server.rounds.finish_epoch, []

    def killed_in_round_two(*arguments):
        finished.append(1)
        if len(finished) == 2:
            raise KeyboardInterrupt
        finish(*arguments)

    monkeypatch.setattr(server.rounds, "finish_epoch", killed_in_round_two)
    with pytest.raises(KeyboardInterrupt):
        simulated(phantom, private(), "k", "2")
    released = load_file(training_run("k").folder / "privacy" / "round-000002.safetensors")

    put: list[dict[str, torch.Tensor]] = []

    def watched(state, *arguments):
        put.append({name: tensor.clone() for name, tensor in state.networks["generator"].state_dict().items()})
        finish(state, *arguments)

    monkeypatch.setattr(server.rounds, "finish_epoch", watched)
    folder = simulated(phantom, private(), "k", "2")
    assert all(torch.equal(tensor, released[f"networks.generator.{name}"]) for name, tensor in put[0].items())
    rounds = json.loads((folder / "privacy" / "ledger.json").read_text())["rounds"]
    assert rounds == list(range(1, len(rounds) + 1))


def test_a_hospital_joins_no_federation_that_promises_less(phantom, monkeypatch):
    write = server.simulation.write_json

    def demanding(file: Path, said: dict[str, object]) -> None:
        demand = {"privacy": {"epsilon": 8.0, "delta": 1e-5, "where": "site"}} if file.name == "site.json" else {}
        write(file, said | demand)

    monkeypatch.setattr(server.simulation, "write_json", demanding)
    config = private(**{"federation.deadline_seconds": 5.0})
    with pytest.raises(FederationError, match="0 of 2 required sites joined"):
        simulated(phantom, config, "d", "2")
    logged = (training_run("d").folder / "sites" / "site1" / "site.log").read_text()
    assert "site.json trusts none" in logged


def test_patients_privacy_in_a_federation_needs_no_noise_of_the_server(phantom):
    pytest.importorskip("opacus", reason="the privacy extra is not installed")
    patient = {"noise_multiplier": 1.0, "patients_per_step": 1.0}
    plain = {"system.gan": False, "train.ema": None, "train.keep": "last"}
    config = override(
        recipe("ganet_seg_debug"), {**SHORT, **plain, **{f"train.privacy.{k}": v for k, v in patient.items()}}
    )
    folder = simulated(phantom, config, "q", "2")
    assert len(list((folder / "sites").rglob("privacy/ledger.json"))) == 2
    assert not (folder / "privacy").exists()


def test_patients_privacy_of_a_gan_is_refused_before_images_are_prepared(phantom):
    config = override(recipe("ganet_seg_debug"), {**SHORT, "train.privacy.epsilon": 8.0})
    with pytest.raises(ConfigError, match=r"system\.gan=false"):
        simulated(phantom, config, "g", "2")

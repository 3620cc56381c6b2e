"""Differential privacy in whole federations: only noised weights leave, and no round is released twice."""

import json

import pytest
import torch
from safetensors.torch import load_file

import server.rounds
from ganseg_dist.config import override
from ganseg_dist.config.privacy import PrivacyDemand
from ganseg_dist.errors import ConfigError, FederationError
from ganseg_dist.federation.policy import SitePolicy
from ganseg_dist.runs import training_run
from ganseg_dist.systems import recipe
from tests.contract.conftest import SHORT
from tests.contract.test_federation import simulated

pytestmark = pytest.mark.usefixtures("own_runs")

BUDGET = 5000.0
"""Too large to protect anyone; with it the weights stay finite."""


def private(**changes: object):
    promised = {"train.ema": None, "federation.privacy.epsilon": BUDGET, "federation.privacy.clip_norm": 0.1}
    return override(recipe("ganet_seg_debug"), {**SHORT, **promised, **changes})


@pytest.mark.parametrize(
    ("where", "strategy", "encoding"),
    [
        ("site", "fedavg", "fp16"),
        *(pytest.param("server", strategy, "fp32", marks=pytest.mark.slow) for strategy in ("fedadam", "fedavg")),
    ],
)
def test_private_federation_sends_only_noised_weights(phantom, where, strategy, encoding):
    changes = {"privacy.where": where, "strategy": strategy, "encoding": encoding}
    config = private(**{f"federation.{name}": value for name, value in changes.items()})
    folder = simulated(phantom, config, "p", "2")
    record = json.loads((folder / "federation.json").read_text())
    assert record["quarantined"] == []
    assert all(round["scores"] == {} for round in record["rounds"])
    spent = [round["epsilon"] for round in record["rounds"]]
    assert spent == sorted(spent)
    assert spent[-1] == pytest.approx(BUDGET, rel=1e-3)
    for site in ("site1", "site2"):
        lines = [json.loads(line) for line in (folder / "sites" / site / "egress.jsonl").read_text().splitlines()]
        assert "evaluate" not in {line["kind"] for line in lines}
        trained = [line["metrics"] for line in lines if line["kind"] == "train"]
        assert trained == [{}] * len(record["rounds"]), "no number leaves"


@pytest.mark.slow
def test_private_federation_resumes_from_released_round_after_kill(phantom, monkeypatch):
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


def test_site_rejects_federation_with_weaker_privacy(phantom, monkeypatch):
    demand = PrivacyDemand(epsilon=8.0, where="site")
    permissive = SitePolicy.of_simulation(["segmenter", "generator"])
    monkeypatch.setattr(SitePolicy, "of_simulation", lambda _: permissive.model_copy(update={"privacy": demand}))
    config = private(**{"federation.deadline_seconds": 5.0})
    with pytest.raises(FederationError, match="0 of 2 required sites joined"):
        simulated(phantom, config, "d", "2")
    logged = (training_run("d").folder / "sites" / "site1" / "site.log").read_text()
    assert "the policy demands site" in logged


@pytest.mark.slow
def test_federation_with_patient_privacy_adds_no_server_noise(phantom):
    pytest.importorskip("opacus", reason="the privacy extra is not installed")
    patient = {"noise_multiplier": 1.0, "patients_per_step": 1.0}
    plain = {"system.gan": False, "train.ema": None, "train.keep": "last"}
    config = override(
        recipe("ganet_seg_debug"), {**SHORT, **plain, **{f"train.privacy.{k}": v for k, v in patient.items()}}
    )
    folder = simulated(phantom, config, "q", "2")
    assert len(list((folder / "sites").rglob("privacy/ledger.json"))) == 2
    assert not (folder / "privacy").exists()


def test_simulate_rejects_patient_privacy_of_gan(phantom):
    config = override(recipe("ganet_seg_debug"), {**SHORT, "train.privacy.epsilon": 8.0})
    with pytest.raises(ConfigError, match=r"system\.gan=false"):
        simulated(phantom, config, "g", "2")

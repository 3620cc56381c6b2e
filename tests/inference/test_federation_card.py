"""The model card of a federation, written from its records alone."""

from ganseg_dist.config import override
from ganseg_dist.data.cohort import Split
from ganseg_dist.engine.state import Epoch
from ganseg_dist.federation.record import FederationRecord
from ganseg_dist.inference.card import model_card
from ganseg_dist.runs import RunRecord
from ganseg_dist.systems import recipe
from tests.data.records import data_record
from tests.federation.record import federation_json

DATA = data_record()
HISTORY = [Epoch("segment", epoch, step=0, workers=1, losses={}, scores={"dice_wt": 0.5}) for epoch in (2, 3)]
RUN = {
    "name": "together",
    "seconds": 60.0,
    "version": "0.1.0",
    "commit": None,
    "absent": ["discriminator"],
    "kept": {"segment": {"epoch": 3, "best_of": ["dice_wt"]}},
}


def card(record=None, data=DATA, run=RUN, **fields):
    config = override(recipe("ganet_seg_debug"), fields)
    found = FederationRecord.model_validate(federation_json() if record is None else record)
    return model_card(config, data, Split((), (), ()), HISTORY, RunRecord.model_validate(run), found)


def test_federation_card_names_sites_and_local_parts():
    text = card()
    assert "\n- Sites: north (6 cases), south (2 cases)\n" in text
    assert "\n- 3 rounds, 6 epochs over all stages\n" in text
    assert "\n- Seed 0; 6 epochs over all stages in 1.0 minutes\n" in text, "not as many as were recorded"
    assert "\n- Stayed at the sites: images, masks, optimizer states, the discriminator\n" in text
    assert "north, south" in card(federation_json(sites={}))


def test_federation_card_uses_singular_for_one():
    single = federation_json(sites={"north": {"patients": 1, "cases": 1}, "south": {"patients": 1}})
    single["rounds"] = [single["rounds"][0] | {"until": 1}]
    text = card(single)
    assert "\n- Sites: north (1 case), south (1 patient)\n" in text
    assert "\n- 1 round, 1 epoch over all stages\n" in text


def test_federation_card_scores_are_of_kept_round():
    assert "epoch kept: north dice_wt 0.700; south dice_wt 0.600\n" in card()
    earlier = {**RUN, "kept": {"segment": {"epoch": 2, "best_of": ["dice_wt"]}}}
    assert "epoch kept: north dice_wt 0.500\n" in card(run=earlier)


def test_federation_card_lists_quarantined_updates_with_reason():
    assert "left out: 1 of south (the change's norm is 9 times the usual one, more than 5)\n" in card()
    assert "left out: none\n" in card(federation_json(quarantined=[]))


def test_federation_card_states_configured_strategy_only():
    assert "- Strategy: fedavg\n" in card()
    assert "- Strategy: fedprox (mu 0.5)\n" in card(
        **{"federation.strategy": "fedprox", "federation.proximal_weight": 0.5}
    )
    assert "- Updates: topk, 10% of the values\n" in card(**{"federation.encoding": "topk"})
    assert "- Normalisation layers: local to each site\n" in card(**{"federation.norm_layers": "local"})
    assert "- Firewall: off\n" in card(**{"federation.firewall": False})


def test_federation_card_states_privacy_only_when_configured():
    assert "- Privacy: none guaranteed to a site or a patient; weights are not anonymous\n" in card()
    rounds = federation_json()["rounds"]
    rounds[-1]["epsilon"] = 2.5
    private = card(federation_json(rounds=rounds), **{"federation.privacy.noise_multiplier": 1.0})
    assert "- Privacy: epsilon 2.5 at delta 1e-05 for any one site, noise added by the server" in private
    patients = card(**{"train.privacy.epsilon": 8.0, "train.keep": "last", "system.gan": False})
    assert "- Privacy: epsilon 8 at delta 1e-05 for any one patient of a site" in patients
    both = card(
        federation_json(rounds=rounds), **{"federation.privacy.epsilon": 3.0, "train.privacy.noise_multiplier": 1.5}
    )
    assert "any one site" in both
    assert "noise multiplier 1.5" in both


def test_federation_card_warns_of_memorisation_for_gan_only():
    assert "- Memorisation: a GAN was trained on these sites' images" in card()
    assert "Memorisation" not in card(**{"system.gan": False})


def test_federation_card_counts_only_data_of_the_server():
    assert "## Data\n- Stayed at the sites: the server saw none of it\n" in card()
    seen = data_record(("p", "ab"))
    assert "- 1 case of 1 patient" in card(data=seen)
    assert "- Cases per site: s 1\n" in card(data=seen)

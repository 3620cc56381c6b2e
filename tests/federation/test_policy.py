"""What a hospital's policy permits a federation, judged before anything of the config is built."""

import tracemalloc

import pytest

from ganseg_dist.config import override
from ganseg_dist.config.privacy import PrivacyDemand
from ganseg_dist.errors import PolicyError
from ganseg_dist.federation.policy import SitePolicy, check_policy, rules
from ganseg_dist.registry import registered
from ganseg_dist.systems import build_system, recipe, recipes

RESOLVED = {"data.modalities": ["t1", "flair"], "data.regions": ["wt"]}
CLASSIFIED = {"data.modalities": ["red", "green", "blue"], "data.classes": ["benign", "malignant"]}


def requested(name="ganet_seg_debug", **changes):
    config = recipe(name)
    return override(config, (CLASSIFIED if config.system.task == "classification" else RESOLVED) | changes)


@pytest.mark.parametrize("system", sorted(registered()))
def test_default_policy_permits_what_system_shares_by_default(system):
    config = requested(f"{system}_debug")
    assert all(rule.allowed for rule in rules(SitePolicy(), config))
    networks = build_system(config).networks
    assert networks.keys() - set(SitePolicy().networks) == networks.keys() & set(config.system.local_networks)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"federation.local": []}, "networks: discriminator would leave, and the policy permits"),
        ({"federation.local": ["segmenter", "generator"]}, "networks: discriminator would leave"),
        ({"federation.local": ["nothing"]}, "networks: federation.local: nothing is no network"),
        ({"train.epochs": 10**9}, "epochs: 10000000"),
        ({"train.epochs": 300, "federation.rounds": 250}, "rounds: 250, and the policy permits 200"),
        ({"system.widths": [10**5, 10**5]}, "memory: training holds "),
        ({"train.loaders": 10**4}, "processes: 10000, and the policy permits 16"),
        ({"train.threads": 10**4}, "processes: 10000, and the policy permits 16"),
    ],
    ids=["all shared", "discriminator shared", "unknown network", "epochs", "rounds", "memory", "loaders", "threads"],
)
def test_check_policy_denies_request(changes, message):
    tracemalloc.start()
    with pytest.raises(PolicyError) as denied:
        check_policy(SitePolicy(), requested(**changes))
    assert tracemalloc.get_traced_memory()[1] < 2**27, "the request is judged, not carried out"
    tracemalloc.stop()
    assert str(denied.value).startswith(message)


@pytest.mark.parametrize("name", sorted(name for name in recipes() if "detector" in name or "dl_gan" in name))
def test_check_policy_denies_file_that_server_names(name):
    with pytest.raises(PolicyError, match=r"files: system\.pretrained may name a file of this machine"):
        check_policy(SitePolicy(), requested(name, **{"system.pretrained": "/home/other/model.safetensors"}))


@pytest.mark.parametrize(
    "changes", [{"data.modalities": ["t1\x1b[2J", "flair"]}, {"data.classes": ["a\nfinished: /all/good", "b"]}]
)
def test_check_policy_denies_names_that_cannot_be_printed(changes):
    with pytest.raises(PolicyError, match="names: of the recipe, channels or classes are not printable"):
        check_policy(SitePolicy(), requested(**changes))


def test_check_policy_denies_recipe_that_cannot_be_printed():
    config = requested().model_copy(update={"recipe": "ganet\r\x1b[2Jfinished: /all/good"})
    with pytest.raises(PolicyError, match="names: "):
        check_policy(SitePolicy(), config)


def test_check_policy_holds_federation_to_privacy_demand():
    policy = SitePolicy(privacy=PrivacyDemand(epsilon=8.0))
    with pytest.raises(PolicyError, match=r"privacy: federation\.privacy: is off, and the policy demands it"):
        check_policy(policy, requested())
    private = {"federation.privacy.epsilon": 8.0, "federation.privacy.where": "site", "train.ema": None}
    check_policy(policy, requested(**private))
    noise_without_budget = {"federation.privacy.noise_multiplier": 0.5, "federation.privacy.where": "site"}
    with pytest.raises(PolicyError, match="would raise this site's epsilon"):
        check_policy(policy, requested(**noise_without_budget, **{"train.ema": None}))


def test_policy_of_simulation_permits_every_default_recipe():
    for name in recipes():
        config = requested(name)
        check_policy(SitePolicy.of_simulation(tuple(build_system(config).networks)), config)

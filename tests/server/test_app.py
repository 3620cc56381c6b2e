"""What a person asks of `flwr run`, and what a server that has no data must be told."""

import tomllib
from pathlib import Path

import pytest

from ganseg_dist.errors import ConfigError
from ganseg_dist.systems import recipe
from server.app import FlowerRunRequest, assignments

ROOT = Path(__file__).parents[2]
KEYS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]


def test_the_keys_of_pyproject_ask_for_the_recipe_as_it_is():
    asked = FlowerRunRequest.of(KEYS)
    assert asked.config == recipe(KEYS["recipe"])
    assert (asked.layout, asked.skew, asked.data, asked.sites) == (None, None, "", "by-hospital")


def test_keys_and_fields_change_the_recipe():
    chosen = {"recipe": "ganet_seg_debug", "rounds": 3, "strategy": "fedmedian", "sites": 4, "set": "train.epochs=7"}
    asked = FlowerRunRequest.of(KEYS | chosen)
    assert asked.config.federation.rounds == 3
    assert asked.config.federation.strategy == "fedmedian"
    assert asked.config.train.epochs == 7
    assert asked.sites == "4"
    assert (asked.labels, FlowerRunRequest.of(KEYS | {"labels": "brats2024-ped"}).labels) == (None, "brats2024-ped")


@pytest.mark.parametrize(
    ("text", "apart"),
    [
        ("", []),
        ("  train.epochs=2  ", ["train.epochs=2"]),
        ("train.epochs=2 data.modalities=t1,flair", ["train.epochs=2", "data.modalities=t1,flair"]),
        ("data.classes=no lesion,lesion seed=3", ["data.classes=no lesion,lesion", "seed=3"]),
        ('federation.local=["critic", "painter"] seed=3', ['federation.local=["critic", "painter"]', "seed=3"]),
    ],
)
def test_fields_are_told_apart_by_their_names(text, apart):
    assert assignments(text) == apart


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"recipe": "no_such"}, "no_such"),
        ({"set": "train.epoch=2"}, "train.epochs"),
        ({"set": "epochs"}, "expected FIELD=VALUE"),
        ({"strategy": "best"}, "federation.strategy"),
        ({"least-sites": 0}, "least-sites: 0"),
        ({"least-sites": "two"}, "least-sites: two"),
    ],
)
def test_what_means_nothing_is_refused_by_name(keys, said):
    with pytest.raises(ConfigError, match=said):
        FlowerRunRequest.of(KEYS | keys)

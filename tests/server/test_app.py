"""The settings of `flwr run`, as pyproject.toml lists them, and the request that the server makes of them."""

import tomllib
from pathlib import Path

import pytest

from ganseg_dist.errors import ConfigError
from ganseg_dist.systems import recipe
from server.app import FlowerRunRequest, assignments

ROOT = Path(__file__).parents[2]
KEYS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]


def test_run_request_of_default_keys_is_recipe():
    request = FlowerRunRequest.of(KEYS)
    assert request.config == recipe(KEYS["recipe"])
    assert (request.layout, request.skew, request.data, request.sites) == (None, None, "", "by-hospital")


def test_run_request_applies_keys_and_assignments():
    chosen = {"recipe": "ganet_seg_debug", "rounds": 3, "strategy": "fedmedian", "sites": 4, "set": "train.epochs=7"}
    request = FlowerRunRequest.of(KEYS | chosen)
    assert request.config.federation.rounds == 3
    assert request.config.federation.strategy == "fedmedian"
    assert request.config.train.epochs == 7
    assert request.sites == "4"
    assert (request.labels, FlowerRunRequest.of(KEYS | {"labels": "brats2024-ped"}).labels) == (None, "brats2024-ped")


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("", []),
        ("  train.epochs=2  ", ["train.epochs=2"]),
        ("train.epochs=2 data.modalities=t1,flair", ["train.epochs=2", "data.modalities=t1,flair"]),
        ("data.classes=no lesion,lesion seed=3", ["data.classes=no lesion,lesion", "seed=3"]),
        ('federation.local=["critic", "painter"] seed=3', ['federation.local=["critic", "painter"]', "seed=3"]),
    ],
)
def test_assignments_splits_text_at_field_names(text, fields):
    assert assignments(text) == fields


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"recipe": "no_such"}, "no_such"),
        ({"set": "train.epoch=2"}, "train.epochs"),
        ({"set": "epochs"}, "expected FIELD=VALUE"),
        ({"strategy": "best"}, "federation.strategy"),
        ({"least-sites": 0}, "least-sites: 0"),
        ({"least-sites": "two"}, "least-sites: two"),
    ],
)
def test_run_request_rejects_invalid_settings(keys, message):
    with pytest.raises(ConfigError, match=message):
        FlowerRunRequest.of(KEYS | keys)

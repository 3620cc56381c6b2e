import pytest

from ganseg_dist.config import override
from ganseg_dist.config.operational import changed_fields, operational_fields, result_config
from ganseg_dist.systems import recipe, recipes

MAY_CHANGE = {
    "data.skull_stripped",
    "federation.deadline_seconds",
    "federation.quorum",
    "train.examples_every",
    "train.loaders",
    "train.threads",
}
"""Whoever marks a field as operational adds it here, after making sure that no weight and no score depends on it."""


@pytest.mark.parametrize("name", recipes())
def test_operational_fields_are_those_that_change_no_result(name):
    assert set(operational_fields(recipe(name))) == MAY_CHANGE


def test_result_config_ignores_operational_fields_and_nothing_else():
    config = recipe("ganet_seg_debug")
    operational = {"federation.deadline_seconds": 5, "federation.quorum": 0.9, "train.threads": 3, "train.loaders": 2}
    assert result_config(override(config, operational)) == result_config(config)
    for field, value in {"train.epochs": 7, "federation.fingerprint": False, "federation.privacy.delta": 1e-6}.items():
        assert result_config(override(config, {field: value})) != result_config(config), field


def test_changed_fields_names_each_field_that_differs():
    config = recipe("ganet_seg_debug")
    assert changed_fields(config, config) == ()
    changed = override(config, {"train.epochs": 7, "data.augment.flip": 0.25})
    assert changed_fields(config, changed) == ("data.augment.flip", "train.epochs")


def test_changed_fields_names_fields_of_another_system():
    names = changed_fields(recipe("ganet_seg_debug"), recipe("gan_osmosis_debug"))
    assert {"system.name", "system.joint_epochs", "system.healthy_epochs"} <= set(names)

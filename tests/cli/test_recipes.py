import json

import pytest

from ganseg_dist.config import RunConfig
from ganseg_dist.config.tree import FIXED
from ganseg_dist.systems import recipe, recipes


def test_recipes_lists_every_recipe_with_description(ganseg):
    lines = ganseg("recipes").out.splitlines()
    assert [line.split()[0] for line in lines] == list(recipes())
    assert all(len(line.split()) > 4 for line in lines)
    assert json.loads(ganseg("recipes", "--json").out) == list(recipes())


@pytest.mark.parametrize("name", recipes())
def test_recipes_prints_every_field_with_value_and_description(ganseg, name):
    def leaves(node, prefix=""):
        for key, value in node.items():
            if isinstance(value, dict):
                yield from leaves(value, f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}", value

    shown = {line.split()[0]: line for line in ganseg("recipes", name).out.splitlines()}
    wanted = dict(leaves(recipe(name).model_dump(mode="json")))
    assert set(shown) == set(wanted) - set(FIXED)
    for field, line in shown.items():
        value, meaning = line.removeprefix(field).strip(), json.dumps(wanted[field])
        assert value.startswith(meaning), field
        assert len(value.removeprefix(meaning).split()) >= 3, f"{field} has no docstring"


def test_recipes_json_is_valid_config(ganseg):
    assert RunConfig.from_json(ganseg("recipes", "ganet_seg_debug", "--json").out) == recipe("ganet_seg_debug")


def test_recipes_suggests_close_name_for_unknown_recipe(ganseg):
    result = ganseg("recipes", "ganet_seg_smal")
    assert result.code == 2
    assert result.errors == ["error: ganet_seg_smal: no such recipe; did you mean ganet_seg_small?"]

"""A name is suggested only where it is close to the misspelt one."""

import pytest

from ganseg_dist.config import override
from ganseg_dist.errors import ConfigError
from ganseg_dist.suggestion import similar, suggestion
from ganseg_dist.systems import recipe

DEBUG = recipe("ganet_seg_debug")


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("train.epoch", ["train.epochs"]),
        ("trian.epochs", ["train.epochs"]),
        ("Train.Epochs", ["train.epochs"]),
        ("epochs", ["train.epochs"]),
        ("epoch", ["train.epochs"]),
        ("batchsize", ["train.batch_size"]),
        ("train.batch-size", ["train.batch_size"]),
        ("data.epochs", ["train.epochs"]),
        ("system.raeding", ["system.reading"]),
        ("system.reading.which", ["system.reading"]),
        ("augment.flip", ["data.augment.flip"]),
        ("data.augmnt.flipp", ["data.augment.flip"]),
        ("proximal_weight", ["train.proximal_weight", "federation.proximal_weight"]),
        ("privacy.epsilon", ["train.privacy.epsilon", "federation.privacy.epsilon"]),
        ("sede", ["seed"]),
        ("federation.foo", []),
        ("foo.bar", []),
        ("zzz", []),
        ("train.", []),
        ("", []),
        ("recipe.name", []),
    ],
)
def test_similar_requires_every_part_of_field_to_be_close(wrong, meant):
    assert similar(wrong, DEBUG.fields()) == meant


def test_override_error_names_recipes_command_without_close_field():
    with pytest.raises(ConfigError) as caught:
        override(DEBUG, {"federation.foo": 1})
    assert str(caught.value) == "federation.foo: no such field; ganseg recipes ganet_seg_debug lists the fields"


def test_suggestion_lists_equally_close_names_unless_many():
    scores = ["val/dice_wt", "val/dice_tc", "val/hd95_wt", "val/hd95_tc"]
    assert suggestion("val/dice", scores, "none") == "did you mean val/dice_wt or val/dice_tc?"
    assert suggestion("dice_wt", scores, "none") == "did you mean val/dice_wt?"
    assert suggestion("val/loss", scores, "none") == "none"
    assert suggestion("x", ["xa", "xb", "xc", "xd"], "none") == "none"
    assert suggestion("x", [], "none") == "none"

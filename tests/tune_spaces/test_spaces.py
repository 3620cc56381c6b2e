"""Search spaces: first values, and systems built from sampled values."""

import optuna
import pytest

from ganseg_dist.config import override
from ganseg_dist.errors import ConfigError
from ganseg_dist.studies.sweeps.space import Space
from ganseg_dist.systems import build_system, recipe, recipes
from tune_spaces import space_of, spaces

RESOLVED = {"data.modalities": ["t1", "flair"], "data.regions": ["wt"]}
RESOLVED_CLASSES = {"data.modalities": ["t1", "flair"], "data.classes": ["no", "yes"]}


def resolved(name: str):
    config = recipe(name)
    return override(config, RESOLVED if config.system.task == "segmentation" else RESOLVED_CLASSES)


@pytest.mark.parametrize("name", recipes())
def test_space_first_values_are_recipe_or_published_values(name):
    config = recipe(name)
    space = space_of(config.system.name, None)
    first = space.first(config)
    assert first
    for field, value in first.items():
        assert value == space.published.get(field, config.flat()[field])


@pytest.mark.parametrize("space", spaces().values(), ids=spaces())
def test_space_samples_build_a_system(space):
    config = resolved(f"{space.system or 'ganet_seg'}_debug")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(20):
        trial = study.ask()
        space.sample(trial, config)
        build_system(override(config, trial.params))


def test_space_omits_fields_without_effect():
    config = override(recipe("ganet_seg_debug"), {"system.gan": False})
    assert set(space_of("ganet_seg", None).first(config)) == {"train.learning_rate", "system.gan"}


def test_space_omits_fields_fixed_by_set():
    config = override(recipe("ganet_seg_debug"), {"system.gan": False, "train.learning_rate": 0.01})
    space = space_of("ganet_seg", None)
    assert set(space.first(config, ["system.gan"])) == {"train.learning_rate"}
    for _ in range(5):
        trial = optuna.create_study().ask()
        space.bind(config, ["train.learning_rate", "system.gan"])(trial)
        assert trial.params == {}
    with pytest.raises(ConfigError, match=r"--space ganet_seg: --set fixes all of its fields"):
        space.first(config, ["train.learning_rate", "system.gan"])
    assert "train.learning_rate" not in space.distributions(config, ["train.learning_rate"])


def test_space_rejects_recipe_of_other_system():
    with pytest.raises(
        ConfigError, match=r"--space gan_osmosis: is of gan_osmosis, and ganet_seg_debug is a recipe of"
    ):
        spaces()["gan_osmosis"].first(recipe("ganet_seg_debug"))


def test_space_of_lists_spaces_for_unknown_name():
    with pytest.raises(
        ConfigError, match=r"--space other: no such space; choose among ganet_seg, ganet_seg_feedback, federation"
    ):
        space_of("ganet_seg", "other")


def test_space_rejects_fields_of_prepared_data():
    space = Space("sizes", "ganet_seg", lambda trial, config: trial.suggest_categorical("data.size", [32, 64]))
    with pytest.raises(ConfigError, match=r"data\.size changes what is prepared"):
        space.first(recipe("ganet_seg_debug"))


def test_space_rejects_unknown_field():
    space = Space("typo", "ganet_seg", lambda trial, config: trial.suggest_float("train.learning_rat", 0, 1))
    with pytest.raises(ConfigError, match=r"--space typo: cannot begin .*learning_rat"):
        space.first(recipe("ganet_seg_debug"))


def test_space_rejects_first_value_outside_range():
    config = override(recipe("ganet_seg_debug"), {"system.adversarial_weight": 50.0})
    with pytest.raises(ConfigError, match=r"--space ganet_seg_feedback: cannot begin .*50.*change them with --set"):
        spaces()["ganet_seg_feedback"].first(config)

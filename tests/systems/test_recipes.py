"""Each debug recipe trains an epoch of each stage, in each variant."""

import math

import pytest
import torch

from ganseg_dist.config import override
from ganseg_dist.engine.checkpoint import Checkpoints
from ganseg_dist.engine.tracker import Tracker
from ganseg_dist.engine.trainer import train_member
from ganseg_dist.engine.world import World
from ganseg_dist.systems import build_system, recipe, recipes
from tests.tiny import prepare, resolved

DEBUG = [name for name in recipes() if name.endswith("_debug")]
EVERY_SYSTEM = {
    "as it is": {},
    "without the GAN": {"system.gan": False},
    "as the paper reads": {"system.reading": "paper"},
    "as the paper reads, without the GAN": {"system.reading": "paper", "system.gan": False},
    "on two modalities and the whole tumour": {"data.modalities": ["flair", "t1ce"], "data.regions": ["wt"]},
    "averaged, in bf16, unclipped": {"train.ema": 0.9, "train.precision": "bf16", "train.clip_norm": None},
    "enhanced, unaugmented": {"data.enhance": "corrected", "data.augment.flip": 0, "data.augment.rotation_degrees": 0},
}
VARIANTS = {
    "ganet_seg": {"pretrained on T1": {"system.healthy_modalities": ["t1"]}},
    "gan_osmosis": {
        "two networks": {"system.shared": False},
        "a random vector, kept alive": {"system.noise": "vector", "system.diversity_weight": 1.0},
        "from masks alone": {"system.foreground_condition": False},
    },
    "dl_gan_cnn": {
        "VGG16": {"system.classifier": "vgg16"},
        "contrast-limited": {"data.equalise": "clahe"},
    },
}
"""Variants of one family only."""
SHORT = {
    "ganet_seg": {"train.epochs": 2, "system.supervised_epochs": 1, "system.healthy_epochs": 1},
    "gan_osmosis": {"train.epochs": 1, "system.joint_epochs": 1},
    "dl_gan_cnn": {"train.epochs": 1, "system.features_epochs": 1},
}
QUICK = {"as it is", "without the GAN", "as the paper reads"}
CASES = [
    pytest.param(
        name,
        changes,
        id=f"{name}, {variant}",
        marks=pytest.mark.slow if variant in EVERY_SYSTEM.keys() - QUICK else [],
    )
    for name in DEBUG
    for variant, changes in (EVERY_SYSTEM | VARIANTS.get(name.removesuffix("_debug"), {})).items()
]


class StepCounter(Tracker):
    """Counts the steps of each phase."""

    def __init__(self) -> None:
        self.phases: dict[str, int] = {}

    def steps(self, first_step, values) -> None:
        for name, series in values.items():
            phase = name.split("/")[0]
            self.phases[phase] = max(self.phases.get(phase, 0), sum(not math.isnan(value) for value in series))


@pytest.mark.parametrize(("name", "changes"), CASES)
def test_debug_recipe_trains_each_stage_in_each_variant(name, changes, cohort, store):
    short = SHORT.get(name.removesuffix("_debug"), {"train.epochs": 1}) | {"train.batch_size": 16}
    config = resolved(recipe(name), cohort, {**short, **changes})
    counter = StepCounter()
    state = train_member(config, prepare(cohort, config, store).open(config), World(), counter, Checkpoints())
    stages = build_system(config).stages
    assert {record.stage for record in state.position.history} == {stage.name for stage in stages}
    assert counter.phases.keys() == {phase.name for stage in stages for phase in stage.phases}
    assert all(steps >= 2 for steps in counter.phases.values())
    for record in state.position.history:
        assert all(math.isfinite(value) for value in record.losses.values())
        assert record.scores
    for network in state.networks.values():
        assert all(torch.isfinite(weight).all() for weight in network.state_dict().values())


@pytest.mark.parametrize("name", DEBUG)
def test_control_has_no_gan_network_or_stage(name, cohort):
    config = resolved(recipe(name), cohort)
    control = build_system(config.model_copy(update={"system": config.system.control()}))
    whole = build_system(config)
    assert set(control.networks) < set(whole.networks)
    assert len(control.stages) == 1
    assert [phase.trains for phase in control.stages[0].phases] == [tuple(control.networks)]


def test_recipe_families_have_debug_size():
    families = {name.removesuffix("_debug").removesuffix("_small") for name in recipes()}
    assert {f"{family}_debug" for family in families} == set(DEBUG)


@pytest.mark.parametrize("name", recipes())
def test_override_without_changes_equals_recipe(name):
    assert override(recipe(name), {}) == recipe(name)

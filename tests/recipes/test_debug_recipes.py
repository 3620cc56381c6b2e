"""Every debug recipe trains an epoch of each of its stages, in each of its variants."""

import math

import pytest
import torch

from ganseg_dist.config import override
from ganseg_dist.engine.checkpoint import NoCheckpoints
from ganseg_dist.engine.tracker import NullTracker
from ganseg_dist.engine.world import World
from ganseg_dist.recipes import RECIPES, recipe
from ganseg_dist.runners.local import train_member
from tests.tiny import prepare, resolved

DEBUG = [name for name in RECIPES if name.endswith("_debug")]
SHORT = {
    "train.epochs": 2,
    "system.supervised_epochs": 1,
    "system.healthy_epochs": 1,
    "train.batch_size": 16,
}
VARIANTS = {
    "as it is": {},
    "without the GAN": {"system.gan": False},
    "as the paper reads": {"system.reading": "paper"},
    "as the paper reads, without the GAN": {"system.reading": "paper", "system.gan": False},
    "pretrained on T1": {"system.healthy_modalities": ["t1"]},
    "on two modalities and the whole tumour": {"data.modalities": ["flair", "t1ce"], "data.regions": ["wt"]},
    "averaged, in bf16, unclipped": {"train.ema": 0.9, "train.precision": "bf16", "train.clip_norm": None},
    "enhanced, unaugmented": {"data.enhance": "sound", "data.augment.flip": 0, "data.augment.rotation_degrees": 0},
}


class Steps(NullTracker):
    """Counts the steps of each phase."""

    def __init__(self) -> None:
        self.phases: dict[str, int] = {}

    def steps(self, first_step, values) -> None:
        for name, series in values.items():
            phase = name.split("/")[0]
            self.phases[phase] = max(self.phases.get(phase, 0), sum(not math.isnan(value) for value in series))


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS.keys())
@pytest.mark.parametrize("name", DEBUG)
def test_an_epoch_of_each_stage(name, changes, cohort, store):
    config = resolved(recipe(name), cohort, {**SHORT, **changes})
    heard = Steps()
    state = train_member(config, prepare(cohort, config, store), World(), heard, NoCheckpoints())
    with_gan = config.system.gan
    assert {record["stage"] for record in state.position.history} == (
        {"healthy", "segment"} if with_gan else {"segment"}
    )
    phases = {"generator", "discriminator", "supervised", "adversarial"} if with_gan else {"supervised"}
    assert heard.phases.keys() == phases
    assert all(steps >= 2 for steps in heard.phases.values())
    for record in state.position.history:
        assert all(math.isfinite(value) for value in record["losses"].values())
        assert record["scores"]
    for network in state.networks.values():
        assert all(torch.isfinite(weight).all() for weight in network.state_dict().values())


def test_every_recipe_has_a_debug_size():
    families = {name.removesuffix("_debug").removesuffix("_small") for name in RECIPES}
    assert {f"{family}_debug" for family in families} == set(DEBUG)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_survives_its_own_override(name):
    assert override(recipe(name), {}) == recipe(name)

"""The names that a stage's replies may have, which systems define."""

import pytest

from ganseg_dist.config import override
from ganseg_dist.engine.tracker import Tracker
from ganseg_dist.engine.trainer import Trainer, prepare_state, seeded
from ganseg_dist.engine.world import World
from ganseg_dist.federation.protocol import EXAMPLES
from ganseg_dist.federation.replies import evaluate_layout, loss_names, train_layout
from ganseg_dist.metrics.registry import find_score
from ganseg_dist.systems import build_system, recipe, recipes
from ganseg_dist.systems.base import Balance, Monitor, Phase, Stage

STAGE = Stage(
    "segment",
    (
        Phase("plain", ("segmenter",), {"segmentation": 1.0, "off": 0.0}),
        Phase("adversarial", ("segmenter",), {"segmentation": 1.0, "size": 0.1, "off": 0.0},
              balance=Balance("segmenter.head.weight", "segmentation")),
    ),
    epochs=3, learning_rate=1e-3, scores=("dice_wt", "hole_l1"), monitor=Monitor(("dice_wt",)),
)  # fmt: skip
RESOLVED = {"data.modalities": ("flair", "t1"), "data.regions": ("wt", "tc"), "data.classes": ("no lesion", "lesion")}


def test_stage_losses_are_terms_of_phases_and_balanced_weights():
    assert STAGE.losses == (
        "plain/segmentation",
        "adversarial/segmentation",
        "adversarial/size",
        "adversarial/weight_segmentation",
        "adversarial/weight_size",
    )
    assert loss_names(STAGE)[0] == "segment/plain/segmentation"


def test_layouts_have_names_of_stage_alone():
    train = train_layout(STAGE, {"w": (2,)}, override(recipe("ganet_seg_debug"), {}).federation, 50)
    assert set(train.numbers) == {EXAMPLES, *loss_names(STAGE)}
    evaluate = evaluate_layout(STAGE, 50)
    assert set(evaluate.numbers) == {EXAMPLES, "dice_wt", "hole_l1"}
    assert 1.01 not in evaluate.numbers["dice_wt"]
    assert 1e16 not in evaluate.numbers["hole_l1"]
    assert 0 in evaluate.numbers[EXAMPLES], "a site may have no validation case"
    assert 0 not in train.numbers[EXAMPLES]
    assert 0 in train_layout(STAGE, {}, override(recipe("ganet_seg_debug"), {}).federation, 0).numbers[EXAMPLES]


@pytest.mark.parametrize("name", recipes())
def test_recipes_define_names_fit_for_metrics(name):
    """MLflow accepts them, and no site can send others."""
    for stage in build_system(override(recipe(name), RESOLVED | {"data.size": 64})).stages:
        assert stage.losses
        assert len(set(stage.losses)) == len(stage.losses)
        for loss in loss_names(stage):
            assert loss.replace("/", "").replace("_", "").isalnum(), loss
        for score in stage.scores:
            low, high = find_score(score).bounds
            assert low < high


class Losses(Tracker):
    def __init__(self) -> None:
        self.names: set[str] = set()

    def epoch(self, step, scores) -> None:
        self.names |= set(scores)


def test_training_logs_losses_of_its_stages(prepared, debug_config):
    """Both phases of GANet-Seg's second stage, and the GAN's."""
    config = override(debug_config, {"train.epochs": 2, "system.healthy_epochs": 1, "system.supervised_epochs": 1})
    seeded(config)
    system = build_system(config)
    state = prepare_state(system, config, World())
    data = prepared.open(config)
    for stage in system.stages:
        losses = Losses()
        Trainer(system, stage, data[stage.source], config, state, World(), losses).fit()
        assert losses.names == {*loss_names(stage), *(f"{stage.name}/{score}" for score in stage.scores)}
        state.position.stage += 1
        state.position.epoch = 0

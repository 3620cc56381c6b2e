"""What the model card says of a run, from its records alone."""

from ganseg_dist.config import override
from ganseg_dist.data.cohort import Split
from ganseg_dist.inference.card import model_card
from ganseg_dist.recipes import recipe

DATA = {"cases": [{"patient": "p", "site": "s"}], "phantom": False, "excluded": []}
HISTORY = [
    {"stage": "detect", "epoch": 0, "scores": {"accuracy": 0.6, "cross_entropy": 0.5}},
    {"stage": "detect", "epoch": 1, "scores": {"accuracy": 0.7, "cross_entropy": 0.9}},
]
RUN = {
    "name": "mine",
    "seconds": 60.0,
    "version": "0.1.0",
    "commit": None,
    "kept": {"detect": {"epoch": 0, "best_of": ["cross_entropy"]}},
}


def card(**changes):
    config = override(recipe("gan_detector_debug"), {f"system.{name}": value for name, value in changes.items()})
    return model_card(config, DATA, Split(("p",), (), ()), HISTORY, RUN)


def test_the_scores_are_those_of_the_epoch_kept():
    assert "accuracy 0.600, cross_entropy 0.500" in card()


def test_a_detector_without_generated_images_is_called_a_control():
    for augmentation in ("none", "classical"):
        assert "the control of GAN detector (no GAN), recipe" in card(augmentation=augmentation)
    assert "the control of GAN detector (no GAN), recipe" in card(gan=False)
    for augmentation in ("gan", "both"):
        assert "\nGAN detector, recipe" in card(augmentation=augmentation)

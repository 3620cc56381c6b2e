"""One warning for a GAN that collapses in training; none for one that learns."""

import pytest

from ganseg_dist.engine.checkpoint import Checkpoints
from ganseg_dist.engine.trainer import train_member
from ganseg_dist.engine.world import World
from ganseg_dist.systems import recipe
from ganseg_dist.systems.base import BEGINNERS_EPOCHS
from tests.tiny import prepare, resolved
from tests.trackers import WarningTracker

LEARNING, COLLAPSING = 2e-3, 0.3
"""Learning rates of the GAN, the only difference. Steps of 0.3 take the generator where tanh is flat, and no gradient
brings it back: all its images are the same."""
SETTINGS = {
    "system.generator": "dcgan",
    "system.synthesis_epochs": BEGINNERS_EPOCHS + 2,
    "train.epochs": 1,
    "train.batch_size": 16,
}


@pytest.fixture
def trained(cohort, store):
    def train(rate):
        """Relative diversity in the epochs that may be warned of, and the warnings."""
        config = resolved(recipe("gan_detector_debug"), cohort, SETTINGS | {"system.synthesis_learning_rate": rate})
        assert config.system.least_diversity == 0.1
        tracker = WarningTracker()
        state = train_member(config, prepare(cohort, config, store).open(config), World(), tracker, Checkpoints())
        epochs = [record.scores for record in state.position.history if record.stage == "synthesis"]
        return [scores["relative_diversity"] for scores in epochs[BEGINNERS_EPOCHS:]], tracker.warnings

    return train


@pytest.mark.slow
def test_train_member_warns_once_of_collapsed_generator(trained):
    diversity, warnings = trained(COLLAPSING)
    assert len(diversity) == 2
    assert max(diversity) < 0.01, "these settings no longer collapse"
    assert len(warnings) == 1
    assert warnings[0].startswith(f"synthesis epoch {BEGINNERS_EPOCHS + 1}: relative_diversity ")
    assert "the generator has collapsed; take system.generator=wgan_gp or a lower" in warnings[0]


@pytest.mark.slow
def test_train_member_does_not_warn_of_learning_generator(trained):
    diversity, warnings = trained(LEARNING)
    assert min(diversity) > 0.2
    assert warnings == []

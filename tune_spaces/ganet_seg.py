"""GANet-Seg: weights of the adversarial feedback, cadence of its GAN, learning rate."""

from __future__ import annotations

from optuna.trial import BaseTrial

from ganseg_dist.config import RunConfig
from ganseg_dist.studies.sweeps.space import Space

PUBLISHED = {
    "train.learning_rate": 6e-5,  # Section 5.4.1
    "system.discriminator_every": 5,  # Section 5.4.1: one discriminator step to five of the generator
}


def ganet_seg(trial: BaseTrial, config: RunConfig) -> None:
    """All weights: of the feedback (Eqs. 9 and 10), of the healthy model, and the learning rate."""
    trial.suggest_float("train.learning_rate", 3e-5, 3e-3, log=True)
    if trial.suggest_categorical("system.gan", [True, False]):
        feedback(trial, config)
        trial.suggest_int("system.discriminator_every", 1, 10)
        trial.suggest_float("system.hole_l1_weight", 10, 300, log=True)
        trial.suggest_float("system.synthetic_lesion_weight", 0.1, 3, log=True)


def feedback(trial: BaseTrial, config: RunConfig) -> None:
    """The weights of Eq. 9 alone, as shares of the segmentation loss's gradient."""
    trial.suggest_float("system.adversarial_weight", 1e-3, 1, log=True)
    trial.suggest_float("system.size_weight", 1e-3, 1, log=True)
    trial.suggest_float("system.sparsity_weight", 1e-4, 0.1, log=True)


SPACES = (
    Space("ganet_seg", "ganet_seg", ganet_seg, PUBLISHED),
    Space("ganet_seg_feedback", "ganet_seg", feedback),
)

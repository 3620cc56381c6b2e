"""The detector: its training images beside the real ones, and their weight."""

from __future__ import annotations

from optuna.trial import BaseTrial

from ganseg_dist.config import RunConfig
from ganseg_dist.studies.sweeps.space import Space


def gan_detector(trial: BaseTrial, config: RunConfig) -> None:
    """Learning rate, augmentation, and of a GAN the generator and the weight of its images."""
    trial.suggest_float("train.learning_rate", 3e-5, 3e-3, log=True)
    if trial.suggest_categorical("system.augmentation", ["none", "classical", "gan", "both"]) in ("gan", "both"):
        trial.suggest_float("system.synthetic_weight", 0.05, 2, log=True)
        if trial.suggest_categorical("system.generator", ["dcgan", "conditional", "wgan_gp"]) == "wgan_gp":
            trial.suggest_int("system.critic_steps", 1, 8)
            trial.suggest_float("system.gradient_penalty_weight", 1, 30, log=True)


SPACES = (Space("gan_detector", "gan_detector", gan_detector),)

"""DL-GAN-CNN: the weights of its feature GAN, and the classifier's learning rate."""

from __future__ import annotations

from optuna.trial import BaseTrial

from ganseg_dist.config import RunConfig
from ganseg_dist.studies.sweeps.space import Space


def dl_gan_cnn(trial: BaseTrial, config: RunConfig) -> None:
    """Learning rate and decay; with the GAN the weights of its two terms."""
    trial.suggest_float("train.learning_rate", 3e-5, 3e-3, log=True)
    trial.suggest_float("train.weight_decay", 1e-6, 1e-2, log=True)
    if trial.suggest_categorical("system.gan", [True, False]):
        trial.suggest_float("system.adversarial_weight", 0.01, 10, log=True)
        trial.suggest_float("system.reconstruction_weight", 1, 300, log=True)


SPACES = (Space("dl_gan_cnn", "dl_gan_cnn", dl_gan_cnn),)

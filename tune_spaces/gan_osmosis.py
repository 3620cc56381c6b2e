"""GAN-OSMOSIS: the three weights of its generator, and the share of its images that are trained on."""

from __future__ import annotations

from optuna.trial import BaseTrial

from ganseg_dist.config import RunConfig
from ganseg_dist.studies.sweeps.space import Space


def gan_osmosis(trial: BaseTrial, config: RunConfig) -> None:
    """lambda_1 to lambda_3 of the generator's loss (line 12 of the paper's algorithm), and the learning rates."""
    trial.suggest_float("train.learning_rate", 3e-5, 3e-3, log=True)
    if trial.suggest_categorical("system.gan", [True, False]):
        trial.suggest_float("system.segmentation_weight", 1, 100, log=True)
        trial.suggest_float("system.adversarial_weight", 0.1, 10, log=True)
        trial.suggest_float("system.reconstruction_weight", 0.5, 100, log=True)
        trial.suggest_float("system.synthetic_share", 0.1, 1)
        trial.suggest_float("system.dropout", 0, 0.8)


SPACES = (Space("gan_osmosis", "gan_osmosis", gan_osmosis),)

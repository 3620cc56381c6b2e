"""Typed, frozen, validated config. Nothing heavy is imported: `--help`, `--dry-run` and a sweep's driver stay fast."""

from ganseg_dist.config.data import AugmentConfig, DataConfig
from ganseg_dist.config.dl_gan_cnn import DLGANCNNConfig
from ganseg_dist.config.federation import FederationConfig
from ganseg_dist.config.gan_detector import GANDetectorConfig
from ganseg_dist.config.gan_osmosis import GANOsmosisConfig
from ganseg_dist.config.ganet_seg import GANetSegConfig, HoleConfig
from ganseg_dist.config.system import SystemConfig
from ganseg_dist.config.train import TrainConfig
from ganseg_dist.config.tree import RunConfig, override, parse_assignments

__all__ = [
    "AugmentConfig",
    "DLGANCNNConfig",
    "DataConfig",
    "FederationConfig",
    "GANDetectorConfig",
    "GANOsmosisConfig",
    "GANetSegConfig",
    "HoleConfig",
    "RunConfig",
    "SystemConfig",
    "TrainConfig",
    "override",
    "parse_assignments",
]

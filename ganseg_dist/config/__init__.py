"""Typed, frozen, validated config. It imports nothing heavy: `--help`, `--dry-run` and sweep drivers stay fast."""

from ganseg_dist.config.data import AugmentConfig, DataConfig
from ganseg_dist.config.federation import FederationConfig
from ganseg_dist.config.system import SystemConfig
from ganseg_dist.config.train import TrainConfig
from ganseg_dist.config.tree import RunConfig, override, parse_assignments

__all__ = [
    "AugmentConfig",
    "DataConfig",
    "FederationConfig",
    "RunConfig",
    "SystemConfig",
    "TrainConfig",
    "override",
    "parse_assignments",
]

"""The published systems, one file each."""

from __future__ import annotations

from ganseg_dist.config import RunConfig
from ganseg_dist.systems.base import System
from ganseg_dist.systems.ganet_seg import GANetSeg

SYSTEMS = {"ganet_seg": GANetSeg}


def build_system(config: RunConfig) -> System:
    """The system a resolved config names."""
    return SYSTEMS[config.system.name](config)

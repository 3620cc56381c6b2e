"""The published systems, one file each."""

from __future__ import annotations

from collections.abc import Callable

from ganseg_dist.config import RunConfig
from ganseg_dist.systems.base import System
from ganseg_dist.systems.dl_gan_cnn import DLGANCNN
from ganseg_dist.systems.gan_detector import GANDetector
from ganseg_dist.systems.gan_osmosis import GANOsmosis
from ganseg_dist.systems.ganet_seg import GANetSeg

SYSTEMS: dict[str, Callable[[RunConfig], System]] = {
    "ganet_seg": GANetSeg,
    "gan_osmosis": GANOsmosis,
    "gan_detector": GANDetector,
    "dl_gan_cnn": DLGANCNN,
}


def build_system(config: RunConfig) -> System:
    """The system a resolved config names."""
    return SYSTEMS[config.system.name](config)

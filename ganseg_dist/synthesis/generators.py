"""Which runs have a generator of whole images."""

from __future__ import annotations

from collections.abc import Mapping

from ganseg_dist.config import RunConfig
from ganseg_dist.errors import RunError
from ganseg_dist.systems.gan_detector.config import GANDetectorConfig

OTHERS: Mapping[str, str] = {
    "ganet_seg": "fills holes in an image with healthy tissue, which ganseg predict --reconstruction writes",
    "dl_gan_cnn": "makes feature maps for its classifier, which no command writes",
}
"""What generators do that make no whole images, by the system's name."""


def check_generator(config: RunConfig) -> None:
    """Raises RunError, naming the field to set, when a run of this config has no generator of whole images."""
    system = config.system
    if system.name in OTHERS:
        raise RunError(
            f"{system.title}: its generator {OTHERS[system.name]}; train gan_osmosis or gan_detector to have images"
        )
    if not system.gan:
        raise RunError(f"{system.title}: has no generator, as system.gan is false; train with system.gan=true")
    if isinstance(system, GANDetectorConfig) and not system.synthesises:
        raise RunError(
            f"{system.title}: has no generator, as system.augmentation is {system.augmentation}; "
            "train with system.augmentation=gan or both"
        )

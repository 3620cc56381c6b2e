"""Spaces of `ganseg tune`, one file a system: fields, their ranges, and what its paper prints of them.

A federation's fields are any system's, and so are thresholds, which are searched without training.
"""

from __future__ import annotations

from ganseg_dist.errors import ConfigError
from ganseg_dist.sweeps.space import Space
from tune_spaces import dl_gan_cnn, federation, gan_detector, gan_osmosis, ganet_seg

SPACES: dict[str, Space] = {
    space.name: space
    for file in (ganet_seg, gan_osmosis, dl_gan_cnn, gan_detector, federation)
    for space in file.SPACES
}


def space_of(system: str, name: str | None) -> Space:
    """The named space; none named: the system's first. Raises ConfigError listing those of the system."""
    own = [space for space in SPACES.values() if space.system in (system, None)]
    if name is None:
        return own[0]
    if name not in SPACES:
        raise ConfigError(
            f"--space {name}: no such space; choose among {', '.join(space.name for space in own)}, thresholds"
        )
    return SPACES[name]

"""Spaces of `ganseg tune`, one file a system: fields, their ranges, and the values in its paper.

The spaces of federations and of thresholds, which are searched without training, apply to any system.
"""

from __future__ import annotations

from functools import cache

from ganseg_dist.errors import ConfigError
from ganseg_dist.registry import load, registered
from ganseg_dist.studies.sweeps.space import Space
from tune_spaces import federation


@cache
def spaces() -> dict[str, Space]:
    """Every system's by name, then those of a federation."""
    of_systems = (space for entry in registered().values() if entry.spaces is not None for space in load(entry.spaces))
    return {space.name: space for space in (*of_systems, *federation.SPACES)}


def space_of(system: str, name: str | None) -> Space:
    """The named space; none named: the system's first. Raises ConfigError listing those of the system."""
    own = [space for space in spaces().values() if space.system in (system, None)]
    if name is None:
        return own[0]
    if name not in spaces():
        raise ConfigError(
            f"--space {name}: no such space; choose among {', '.join(space.name for space in own)}, thresholds"
        )
    return spaces()[name]

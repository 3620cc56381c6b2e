"""The systems and their recipes by name. Importing this loads no torch; building a system does."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ganseg_dist.config import RunConfig
from ganseg_dist.errors import ConfigError
from ganseg_dist.registry import load, registered
from ganseg_dist.suggestion import suggestion

if TYPE_CHECKING:
    from ganseg_dist.systems.base import System

Recipe = Callable[[], RunConfig]
"""A function that returns a config. A variant edits its base, so that it lists only what differs."""


def build_system(config: RunConfig) -> System:
    """The system that a resolved config names, its networks untrained."""
    system: System = load(registered()[config.system.name].system)(config)
    return system


def outline_system(config: RunConfig) -> System:
    """The same on torch's meta device, which holds no weights: the stages, and the names and shapes of the networks.

    Raises what `build_system` raises, for a pretrained file too.
    """
    import torch

    with torch.device("meta"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*copying from a non-meta parameter")  # of a pretrained file
        return build_system(config)


def recipes() -> Mapping[str, Recipe]:
    """Every system's recipes by their names, the published one of each first."""
    return {recipe.__name__: recipe for entry in registered().values() for recipe in load(entry.recipes)}


def recipe(name: str) -> RunConfig:
    """The named recipe's config. Raises ConfigError listing the known ones."""
    known = recipes()
    if name not in known:
        all_names = f"known recipes: {', '.join(known)}"
        raise ConfigError(f"{name}: no such recipe; {suggestion(name, known, all_names)}")
    return known[name]()

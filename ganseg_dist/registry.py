"""Every system by name: the four published ones, and those that installed packages add.

A package adds its own by an entry point of the group `ganseg.systems`, which names a `SystemEntry`:

    [project.entry-points."ganseg.systems"]
    toy = "toy_package:ENTRY"

An entry holds import paths and not classes, so that listing the names loads neither torch nor optuna.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from ganseg_dist.errors import ConfigError, one_line

GROUP = "ganseg.systems"


@dataclass(frozen=True, slots=True)
class SystemEntry:
    """Import paths of one system's parts, each as `module:name`."""

    config: str
    """The subclass of `SystemConfig` with its fields; imports no torch."""
    system: str
    """Callable that makes the `System` from a resolved RunConfig, usually its class."""
    recipes: str
    """A tuple of functions that return a RunConfig, the published one first; imports no torch."""
    spaces: str | None = None
    """A tuple of `Space`, which `ganseg tune` searches; the first is the default."""
    evidence: str | None = None
    """A function of (system, seed, healthy slices, lesion slices) that returns what `ganseg evaluate` records of the
    GAN, fit for JSON, or None; see `systems.ganet_seg.evidence`."""


def _published(name: str, system: str, config: str, evidence: str | None = None) -> SystemEntry:
    package = f"ganseg_dist.systems.{name}"
    return SystemEntry(
        f"{package}.config:{config}",
        f"{package}.system:{system}",
        f"{package}.recipes:RECIPES",
        f"tune_spaces.{name}:SPACES",
        evidence and f"{package}.{evidence}",
    )


PUBLISHED: Mapping[str, SystemEntry] = {
    "ganet_seg": _published("ganet_seg", "GANetSeg", "GANetSegConfig", "evidence:evidence"),
    "gan_osmosis": _published("gan_osmosis", "GANOsmosis", "GANOsmosisConfig"),
    "gan_detector": _published("gan_detector", "GANDetector", "GANDetectorConfig"),
    "dl_gan_cnn": _published("dl_gan_cnn", "DLGANCNN", "DLGANCNNConfig"),
}
"""No entry points, as code that is uploaded to a cluster is not installed there."""


@cache
def registered() -> Mapping[str, SystemEntry]:
    """The systems by name, the published ones first.

    Raises ConfigError for an entry point that cannot be loaded, is no SystemEntry or has another system's name.
    """
    entries = dict(PUBLISHED)
    for point in entry_points(group=GROUP):
        owner = f"{point.dist.name}: " if point.dist is not None else ""
        place = f"{owner}the entry point {point.name} of {GROUP}"
        if point.name in entries:
            raise ConfigError(f"{place} takes a name that another system has; rename it")
        try:
            entry = point.load()
        except Exception as error:
            raise ConfigError(f"{place} cannot be loaded ({one_line(error)}); fix or uninstall the package") from error
        if not isinstance(entry, SystemEntry):
            raise ConfigError(f"{place} is no ganseg_dist.registry.SystemEntry; fix or uninstall the package")
        entries[point.name] = entry
    return entries


def systems_with(setting: str) -> list[str]:
    """Names of the systems whose config class has something other than nothing as this class variable."""
    return [name for name, entry in registered().items() if getattr(load(entry.config), setting)]


def load(path: str) -> Any:
    """Import the object at `module:name`. Raises ConfigError if it does not exist."""
    module, _, name = path.partition(":")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{path}: cannot be loaded ({one_line(error)}); fix or uninstall the package") from error

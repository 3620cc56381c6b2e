"""Systems, strategies of a federation and readers of layouts by name: our own, and those that installed packages add.

A package adds one by an entry point, which names a `SystemEntry`, a class of `federation.strategy.Strategy` or an
instance of `data.readers.shared.base.Reader`:

    [project.entry-points."ganseg.systems"]
    toy = "toy_package:ENTRY"
    [project.entry-points."ganseg.strategies"]
    toy_mean = "toy_package.strategy:ToyMean"
    [project.entry-points."ganseg.readers"]
    toy_stacks = "toy_package.reader:READER"

A system's entry holds import paths and not classes, so that listing the names loads neither torch nor optuna.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, TypeVar

from ganseg_dist.errors import ConfigError, one_line

GROUP = "ganseg.systems"
STRATEGIES_GROUP = "ganseg.strategies"
READERS_GROUP = "ganseg.readers"
SYSTEMS_PACKAGE = "ganseg_dist.systems"
"""Its packages are the published systems, each with an ENTRY. They need no entry points, as code that is uploaded to a
cluster is not installed there."""
STRATEGIES_PACKAGE = "ganseg_dist.federation.strategies"
"""Its modules are the published strategies, each with a class STRATEGY."""
READERS_PACKAGE = "ganseg_dist.data.readers"
"""Its modules are our own readers, each with an instance READER."""

T = TypeVar("T")


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
    """A function of (system, seed, healthy slices, lesion slices) that returns a `Record` of what `ganseg evaluate`
    measures of the GAN, or None; see `systems.ganet_seg.evidence`."""
    section: str | None = None
    """The `report.section.Section` that shows the evidence; see `systems.ganet_seg.section`."""


@cache
def registered() -> Mapping[str, SystemEntry]:
    """The systems by name, the published ones first.

    Raises ConfigError for an entry point that cannot be loaded, is no SystemEntry or has another system's name.
    """
    entries = {name: load(f"{SYSTEMS_PACKAGE}.{name}:ENTRY") for name in published_systems()}
    return _with_packages(
        entries, GROUP, "system", "ganseg_dist.registry.SystemEntry", lambda x: isinstance(x, SystemEntry)
    )


@cache
def strategies() -> Mapping[str, Any]:
    """The classes of the strategies by name, the published ones first and of those the older ones.

    Raises ConfigError for an entry point that cannot be loaded, is no Strategy or has another strategy's name.
    """
    classes = {name: load(f"{STRATEGIES_PACKAGE}.{name}:STRATEGY") for name in published_strategies()}
    oldest_first = dict(sorted(classes.items(), key=lambda named: named[1].year))
    base = load("ganseg_dist.federation.strategy:Strategy")
    return _with_packages(
        oldest_first,
        STRATEGIES_GROUP,
        "strategy",
        f"subclass of {base.__module__}.Strategy",
        lambda x: isinstance(x, type) and issubclass(x, base),
    )


@cache
def readers() -> Mapping[str, Any]:
    """The readers by name, in the order in which they are tried on a folder; at the same `order`, our own first.

    Raises ConfigError for an entry point that cannot be loaded, is no Reader, has another reader's name, or has not the
    name that its reader states, which runs record as their layout.
    """
    instances = {name: load(f"{READERS_PACKAGE}.{name}:READER") for name in published_readers()}
    base = load("ganseg_dist.data.readers.shared.base:Reader")
    everyone = _with_packages(
        instances, READERS_GROUP, "reader", f"instance of {base.__module__}.Reader", lambda x: isinstance(x, base)
    )
    for name, reader in everyone.items():
        if reader.name != name:
            raise ConfigError(
                f"the entry point {name} of {READERS_GROUP} names reader {reader.name}; give both one name"
            )
    return dict(sorted(everyone.items(), key=lambda named: named[1].order))


def published_systems() -> list[str]:
    """Names of the published systems."""
    return _modules("systems", packages=True)


def published_strategies() -> list[str]:
    """Names of the published strategies."""
    return _modules("federation", "strategies")


def published_readers() -> list[str]:
    """Names of our own readers of layouts."""
    return _modules("data", "readers")


def strategy_names() -> list[str]:
    """Names of all strategies, without loading them."""
    return published_strategies() + [point.name for point in entry_points(group=STRATEGIES_GROUP)]


def reader_names() -> list[str]:
    """Names of all readers, without loading them."""
    return published_readers() + [point.name for point in entry_points(group=READERS_GROUP)]


def _modules(*folder: str, packages: bool = False) -> list[str]:
    """Names of the modules, or of the packages, in a folder of ganseg_dist, without loading them."""
    place = Path(__file__).parent.joinpath(*folder)
    return [module.name for module in iter_modules([str(place)]) if module.ispkg == packages]


def _with_packages(
    published: Mapping[str, T], group: str, kind: str, expected: str, fits: Callable[[Any], bool]
) -> Mapping[str, T]:
    """The published entries and, behind them, those of installed packages, for each of which `fits` must hold.

    Messages call an entry `kind`, and what an entry point must name `expected`.
    """
    entries = dict(published)
    for point in entry_points(group=group):
        owner = f"{point.dist.name}: " if point.dist is not None else ""
        place = f"{owner}the entry point {point.name} of {group}"
        if point.name in entries:
            raise ConfigError(f"{place} takes a name that another {kind} has; rename it")
        try:
            entry = point.load()
        except Exception as error:
            raise ConfigError(f"{place} cannot be loaded ({one_line(error)}); fix or uninstall the package") from error
        if not fits(entry):
            raise ConfigError(f"{place} is no {expected}; fix or uninstall the package")
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

"""What a sweep may change: a function that asks an Optuna trial for fields of the config.

    def ganet_seg(trial: BaseTrial, config: RunConfig) -> None:
        trial.suggest_float("train.learning_rate", 1e-5, 1e-2, log=True)

A field that only sometimes matters is asked for under an `if`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from ganseg_dist.config import RunConfig, override
from ganseg_dist.errors import ConfigError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import BaseTrial

Told = TypeVar("Told")

SAME_SLICES = ("data.blank_rate", "data.augment.")
"""Fields of data that do not change what is prepared, which all trials share."""


@dataclass(frozen=True, slots=True)
class Asks(Generic[Told]):
    """A space's function with what it is told beside the trial; unlike a closure it can be kept and sent."""

    ask: Callable[[BaseTrial, Told], None]
    told: Told
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """Values of fields that are not searched, though the space asks for them."""

    def __call__(self, trial: BaseTrial) -> None:
        """As Optuna and Tune call it."""
        self.ask(cast("BaseTrial", _Partly(trial, self.fixed)), self.told)


class _Partly:
    """A trial that is not asked for what is fixed."""

    def __init__(self, trial: BaseTrial, fixed: Mapping[str, Any]) -> None:
        self.trial, self.fixed = trial, fixed

    def __getattr__(self, attribute: str) -> Any:
        of_trial = getattr(self.trial, attribute)
        if not attribute.startswith("suggest_"):
            return of_trial

        def suggest(name: str, *arguments: Any, **more: Any) -> Any:
            return self.fixed[name] if name in self.fixed else of_trial(name, *arguments, **more)

        return suggest


@dataclass(frozen=True, slots=True)
class Space:
    """Fields, their ranges, and where the search begins."""

    name: str
    system: str | None
    """Name of the system whose fields it holds; none: any system has them."""
    ask: Callable[[BaseTrial, RunConfig], None]
    """Told the recipe's config, by which a range may go."""
    published: Mapping[str, Any] = field(default_factory=dict)
    """Values that the system's paper gives; the first trial takes them, and the recipe's own for the other fields."""

    def asks(self, config: RunConfig, fixed: Collection[str] = ()) -> Asks[RunConfig]:
        """The space of this recipe, less the fields that are fixed at the config's values."""
        return Asks(self.ask, config, {name: value for name, value in config.flat().items() if name in fixed})

    def first(self, config: RunConfig, fixed: Collection[str] = ()) -> dict[str, Any]:
        """The first trial's values.

        Raises ConfigError when the space is not one of this recipe, or nothing of it is left to search.
        """
        return dict(self._asked(config, fixed).params)

    def distributions(self, config: RunConfig, fixed: Collection[str] = ()) -> dict[str, BaseDistribution]:
        """Of the fields that the first trial has; one asked for under an `if` that it does not meet is not there."""
        return dict(self._asked(config, fixed).distributions)

    def _asked(self, config: RunConfig, fixed: Collection[str]) -> Any:
        from optuna.trial import FixedTrial

        if self.system not in (None, config.system.name):
            raise ConfigError(
                f"--space {self.name}: is of {self.system}, and {config.recipe} is a recipe of {config.system.name}; "
                "choose another, see: ganseg tune --help"
            )
        begun = FixedTrial(config.flat() | dict(self.published))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # Optuna only warns of a value outside its range
                self.asks(config, fixed)(begun)
        except (ValueError, UserWarning) as error:
            raise ConfigError(
                f"--space {self.name}: cannot begin at the values of {config.recipe} ({error}); change them with --set"
            ) from None
        if not begun.params:
            raise ConfigError(
                f"--space {self.name}: --set fixes all of its fields; leave out one that is to be searched"
            )
        for name in begun.params:
            if name.startswith("data.") and not name.startswith(SAME_SLICES):
                raise ConfigError(
                    f"--space {self.name}: {name} changes what is prepared, which all trials share; take it out, and "
                    f"sweep with --set {name}=VALUE once for each value"
                )
        override(config, begun.params)
        return begun

"""The search space of a sweep: a function that samples fields of the config from an Optuna trial.

    def ganet_seg(trial: BaseTrial, config: RunConfig) -> None:
        trial.suggest_float("train.learning_rate", 1e-5, 1e-2, log=True)

A conditional field is sampled under an `if`.
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

Argument = TypeVar("Argument")

SAME_SLICES = ("data.blank_rate", "data.augment.")
"""Fields of data that leave the prepared slices unchanged, as all trials share them."""


@dataclass(frozen=True, slots=True)
class BoundSpace(Generic[Argument]):
    """A space's function with its second argument bound; unlike a closure it can be pickled."""

    sample: Callable[[BaseTrial, Argument], None]
    argument: Argument
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """Values of fields of the space that are not searched."""

    def __call__(self, trial: BaseTrial) -> None:
        """Sample the fields of the space from the trial; Optuna and Tune call this."""
        self.sample(cast("BaseTrial", _PartlyFixedTrial(trial, self.fixed)), self.argument)


class _PartlyFixedTrial:
    """An Optuna trial whose suggest_* methods return the fixed value of a fixed field and do not record it."""

    def __init__(self, trial: BaseTrial, fixed: Mapping[str, Any]) -> None:
        self.trial, self.fixed = trial, fixed

    def __getattr__(self, attribute: str) -> Any:
        member = getattr(self.trial, attribute)
        if not attribute.startswith("suggest_"):
            return member

        def suggest(name: str, *args: Any, **kwargs: Any) -> Any:
            return self.fixed[name] if name in self.fixed else member(name, *args, **kwargs)

        return suggest


@dataclass(frozen=True, slots=True)
class Space:
    """Fields, their ranges, and the first trial's values."""

    name: str
    system: str | None
    """Name of the system whose fields it holds; None: fields that every system has."""
    sample: Callable[[BaseTrial, RunConfig], None]
    """Called with a trial and the recipe's config, on which a range may depend."""
    published: Mapping[str, Any] = field(default_factory=dict)
    """Values that the system's paper gives; the first trial uses them, and the recipe's for the other fields."""

    def bind(self, config: RunConfig, fixed: Collection[str] = ()) -> BoundSpace[RunConfig]:
        """The space for this config; the fields in `fixed` keep the config's values."""
        return BoundSpace(self.sample, config, {name: value for name, value in config.flat().items() if name in fixed})

    def first(self, config: RunConfig, fixed: Collection[str] = ()) -> dict[str, Any]:
        """The first trial's values.

        Raises ConfigError when the space belongs to another system, or every field of it is fixed.
        """
        return dict(self._first_trial(config, fixed).params)

    def distributions(self, config: RunConfig, fixed: Collection[str] = ()) -> dict[str, BaseDistribution]:
        """Distributions of the first trial's fields; a conditional field that the first trial lacks is absent."""
        return dict(self._first_trial(config, fixed).distributions)

    def _first_trial(self, config: RunConfig, fixed: Collection[str]) -> Any:
        from optuna.trial import FixedTrial

        if self.system not in (None, config.system.name):
            raise ConfigError(
                f"--space {self.name}: is of {self.system}, and {config.recipe} is a recipe of {config.system.name}; "
                "choose another, see: ganseg tune --help"
            )
        trial = FixedTrial(config.flat() | dict(self.published))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # Optuna only warns of a value outside its range
                self.bind(config, fixed)(trial)
        except (ValueError, UserWarning) as error:
            raise ConfigError(
                f"--space {self.name}: cannot begin at the values of {config.recipe} ({error}); change them with --set"
            ) from None
        if not trial.params:
            raise ConfigError(
                f"--space {self.name}: --set fixes all of its fields; leave out one that is to be searched"
            )
        for name in trial.params:
            if name.startswith("data.") and not name.startswith(SAME_SLICES):
                raise ConfigError(
                    f"--space {self.name}: {name} changes what is prepared, which all trials share; take it out, and "
                    f"sweep with --set {name}=VALUE once for each value"
                )
        override(config, trial.params)
        return trial

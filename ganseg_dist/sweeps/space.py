"""What a sweep may change: a function that asks an Optuna trial for fields of the config.

    def ganet_seg(trial: Trial) -> None:
        trial.suggest_float("train.learning_rate", 1e-5, 1e-2, log=True)

A field that only sometimes matters is asked for under an `if`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ganseg_dist.config import RunConfig, override
from ganseg_dist.errors import ConfigError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import BaseTrial

SAME_SLICES = ("data.blank_rate", "data.augment.")
"""Fields of data that do not change what is prepared, which all trials share."""


@dataclass(frozen=True, slots=True)
class Space:
    """Fields, their ranges, and where the search begins."""

    name: str
    system: str
    """Name of the system whose fields it holds."""
    ask: Callable[[BaseTrial], None]
    published: Mapping[str, Any] = field(default_factory=dict)
    """Values that the system's paper gives; the first trial takes them, and the recipe's own for the other fields."""

    def first(self, config: RunConfig) -> dict[str, Any]:
        """The first trial's values. Raises ConfigError when the space is not one of this recipe."""
        return dict(self._asked(config).params)

    def distributions(self, config: RunConfig) -> dict[str, BaseDistribution]:
        """Of the fields that the first trial has; one asked for under an `if` that it does not meet is not there."""
        return dict(self._asked(config).distributions)

    def _asked(self, config: RunConfig) -> Any:
        from optuna.trial import FixedTrial

        if config.system.name != self.system:
            raise ConfigError(
                f"--space {self.name}: is of {self.system}, and {config.recipe} is a recipe of {config.system.name}; "
                "choose another, see: ganseg tune --help"
            )
        begun = FixedTrial(config.flat() | dict(self.published))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # Optuna only warns of a value outside its range
                self.ask(begun)
        except (ValueError, UserWarning) as error:
            raise ConfigError(
                f"--space {self.name}: cannot begin at the values of {config.recipe} ({error}); change them with --set"
            ) from None
        for name in begun.params:
            if name.startswith("data.") and not name.startswith(SAME_SLICES):
                raise ConfigError(
                    f"--space {self.name}: {name} changes what is prepared, which all trials share; take it out, and "
                    f"sweep with --set {name}=VALUE once for each value"
                )
        override(config, begun.params)
        return begun

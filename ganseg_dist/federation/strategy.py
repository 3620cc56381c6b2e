"""The interface of strategies, by which a federation's server makes one model of the sites' models.

A strategy is one file: a module of `federation/strategies` with its class as STRATEGY or, in an installed package, a
class that an entry point of the group `ganseg.strategies` names. Configs load these files, so they import flwr and
NumPy inside their functions.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from ganseg_dist import registry
from ganseg_dist.config import FederationConfig, RunConfig, override
from ganseg_dist.config.fields import Frozen

if TYPE_CHECKING:
    import numpy.typing as npt

    from ganseg_dist.federation.shared_parameters import Arrays


@dataclass(slots=True)
class StageState:
    """A strategy's state over the rounds of a stage; checkpoints hold it."""

    rounds: int = 0
    """Aggregated so far."""
    tensors: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    """float32, by a name of the strategy's choice."""


class Strategy(Frozen):
    """A strategy. Its fields are its hyperparameters: fields of `federation` with the same defaults and docstrings."""

    year: ClassVar[int]
    """Of publication; lists name older strategies first."""
    needs_only_mean: ClassVar[bool] = False
    """Whether it sees nothing but the mean of the updates, which `federation.privacy` can cover with noise."""
    updates_ema: ClassVar[bool] = True
    """Whether running averages of weights (`train.ema`) remain averages under its update."""
    searched: ClassVar[Mapping[str, tuple[float, float]] | None] = None
    """Hyperparameters that `ganseg tune --space federation` searches, with the ends of their logarithmic range; None:
    it does not try the strategy."""

    @property
    def details(self) -> str:
        """Hyperparameters as text, for cards and reports; empty without any."""
        return ", ".join(f"{name} {value}" for name, value in self)

    def least_answers(self) -> int:
        """The fewest answers to a round with which it bounds the influence of one site.

        Raises ConfigError for hyperparameters with which no number is enough.
        """
        return 1

    def site_fields(self) -> Mapping[str, object]:
        """Fields of the config by which the sites train, where they differ from the run's."""
        return {}

    @abstractmethod
    def aggregate(
        self, sent: Arrays, updates: Mapping[str, Arrays], weights: Mapping[str, float], state: StageState
    ) -> Mapping[str, npt.NDArray[Any]]:
        """The aggregate of the sites' models after training, under the names of `sent`, the round's first weights.

        All updates have these names; `weights` are the sites' shares, which sum to 1. `state.tensors` may be replaced.
        """


class FlowerStrategy(Strategy):
    """A strategy that is a class of Flower's, applied to the updates that the firewall accepts."""

    flower_class: ClassVar[str]
    """Its name in `flwr.serverapp.strategy`."""

    def options(self, answers: int) -> dict[str, Any]:
        """Arguments of Flower's class for a round with this number of answers."""
        return {}

    def flower(self, answers: int) -> Any:
        """Flower's strategy, made anew for every round."""
        from ganseg_dist.federation.flower import flower_strategy

        return flower_strategy(self.flower_class)(**self.options(answers))

    def aggregate(  # noqa: D102
        self, sent: Arrays, updates: Mapping[str, Arrays], weights: Mapping[str, float], state: StageState
    ) -> Mapping[str, npt.NDArray[Any]]:
        from ganseg_dist.federation.flower import aggregate_with

        return aggregate_with(self.flower(len(updates)), updates, weights, state.rounds)


def strategies() -> Mapping[str, type[Strategy]]:
    """All strategies by name."""
    return registry.strategies()


def strategy_of(federation: FederationConfig) -> Strategy:
    """The config's strategy with its hyperparameters."""
    chosen = strategies()[federation.strategy]
    return chosen(**{name: getattr(federation, name) for name in chosen.model_fields})


def with_site_batch_size(config: RunConfig, sites: int) -> RunConfig:
    """The config of a run that this many sites begin, which fixes the batch of each; a given one stays.

    A step of the federation is a step at every site, so that its batch is spread over all of them: like workers of one
    run, n sites take an n-th of `train.batch_size` each. With whole batches they would take an n-th of the steps that
    the same data give in one place, and average models that have hardly changed.
    """
    batch_size = config.federation.site_batch_size or max(1, round(config.train.batch_size / sites))
    return override(config, {"federation.site_batch_size": batch_size})


def config_at_sites(config: RunConfig) -> RunConfig:
    """The config by which each site trains.

    Before the run has fixed the sites' batch (`with_site_batch_size`), it has the whole one.
    """
    batch_size = config.federation.site_batch_size or config.train.batch_size
    return override(config, {"train.batch_size": batch_size, **strategy_of(config.federation).site_fields()})

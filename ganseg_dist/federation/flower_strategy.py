"""Strategies that Flower implements, applied to the updates that the firewall accepts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from ganseg_dist.federation.strategy import StageState, Strategy

if TYPE_CHECKING:
    import numpy.typing as npt

    from ganseg_dist.federation.shared_parameters import Arrays


class FlowerStrategy(Strategy):
    """A strategy that is a class of Flower's."""

    flower_class: ClassVar[str]
    """Its name in `flwr.serverapp.strategy`."""

    def options(self, answers: int) -> dict[str, Any]:
        """Arguments of Flower's class for a round with this number of answers."""
        return {}

    def flower(self, answers: int) -> Any:
        """Flower's strategy, made anew for every round."""
        from ganseg_dist.federation.flower import flower_strategy

        return flower_strategy(self.flower_class)(**self.options(answers))

    def aggregate(
        self, sent: Arrays, updates: Mapping[str, Arrays], weights: Mapping[str, float], state: StageState
    ) -> Mapping[str, npt.NDArray[Any]]:
        """As `Strategy.aggregate`."""
        from ganseg_dist.federation.flower import aggregate_with

        return aggregate_with(self.flower(len(updates)), updates, weights, state.rounds)

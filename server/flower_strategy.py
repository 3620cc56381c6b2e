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
        from flwr.serverapp import strategy

        return getattr(strategy, self.flower_class)(**self.options(answers))

    def aggregate(
        self, sent: Arrays, updates: Mapping[str, Arrays], weights: Mapping[str, float], state: StageState
    ) -> Mapping[str, npt.NDArray[Any]]:
        """As `Strategy.aggregate`."""
        return aggregate_with(self.flower(len(updates)), updates, weights, state.rounds)


def aggregate_with(
    flower: Any, updates: Mapping[str, Mapping[str, npt.NDArray[Any]]], weights: Mapping[str, float], rounds: int
) -> dict[str, npt.NDArray[Any]]:
    """What Flower's strategy makes of the updates after this number of rounds."""
    from flwr.app import Message, MessageType

    from ganseg_dist.errors import FederationError
    from ganseg_dist.federation.flower import pack_reply
    from ganseg_dist.federation.protocol import EXAMPLES

    replies = [
        Message(pack_reply(arrays, {EXAMPLES: weights[site]}), dst_node_id=0, message_type=MessageType.TRAIN)
        for site, arrays in updates.items()
    ]
    merged, _ = flower.aggregate_train(rounds, replies)
    if merged is None:
        raise FederationError("round: no update to aggregate")
    return {name: array.numpy() for name, array in merged.items()}

"""Packs what `federation.protocol` defines into Flower's records, and reads it, for both ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import strategy
from flwr.serverapp.strategy import FedAvg
from numpy.typing import NDArray

from ganseg_dist.errors import FederationError
from ganseg_dist.federation.protocol import EXAMPLES, RoundInstruction
from ganseg_dist.federation.shared_parameters import Arrays

UNREADABLE = "the message cannot be read; both ends must run the same version"


def pack_instruction(instruction: RoundInstruction, arrays: Arrays) -> RecordDict:
    """A server's message to one site."""
    return RecordDict({"instruction": ConfigRecord({"json": instruction.to_json()}), "arrays": _packed(arrays)})


def pack_reply(arrays: Mapping[str, NDArray[Any]], numbers: Mapping[str, float]) -> RecordDict:
    """A site's reply; the arrays' record is omitted if there are none."""
    content = RecordDict({"metrics": MetricRecord(dict(numbers))})
    if arrays:
        content["arrays"] = _packed(arrays)
    return content


def unpack_instruction(content: RecordDict) -> RoundInstruction:
    """The instruction of a message. Raises FederationError when it is missing or cannot be read."""
    try:
        return RoundInstruction.from_json(str(content.config_records["instruction"]["json"]))
    except KeyError:
        raise FederationError(UNREADABLE) from None


def arrays_of(content: RecordDict) -> Arrays:
    """Arrays by name; nothing is unpickled. Raises FederationError when they cannot be read."""
    try:
        return {name: array.numpy() for name, array in content.array_records["arrays"].items()}
    except (KeyError, TypeError, ValueError, EOFError, OSError):
        raise FederationError(UNREADABLE) from None


def numbers_of(content: RecordDict) -> dict[str, float]:
    """Numbers by name. Raises FederationError for lists and for a reply without numbers."""
    metrics = content.metric_records.get("metrics")
    if metrics is None or any(isinstance(value, list) for value in metrics.values()):
        raise FederationError(UNREADABLE)
    return {name: value for name, value in metrics.items() if not isinstance(value, list)}


def flower_strategy(name: str) -> type[FedAvg]:
    """Flower's strategy of this name."""
    found: type[FedAvg] = getattr(strategy, name)
    return found


def aggregate_with(
    flower: FedAvg, updates: Mapping[str, Mapping[str, NDArray[Any]]], weights: Mapping[str, float], rounds: int
) -> dict[str, NDArray[Any]]:
    """The updates' aggregate by Flower's strategy after this number of rounds of a stage."""
    replies = [
        Message(pack_reply(arrays, {EXAMPLES: weights[site]}), dst_node_id=0, message_type=MessageType.TRAIN)
        for site, arrays in updates.items()
    ]
    merged, _ = flower.aggregate_train(rounds, replies)
    if merged is None:
        raise FederationError("round: no update to aggregate")
    return {name: array.numpy() for name, array in merged.items()}


def _packed(arrays: Mapping[str, NDArray[Any]]) -> ArrayRecord:
    return ArrayRecord({name: Array(array) for name, array in arrays.items()})

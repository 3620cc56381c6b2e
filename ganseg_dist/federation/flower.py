"""Packs what `federation.protocol` defines into Flower's records, and reads it, for both ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import strategy
from flwr.serverapp.strategy import FedAvg
from numpy.typing import NDArray

from ganseg_dist.errors import FederationError
from ganseg_dist.federation.message_layout import MessageLayout, unpack_weights
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
    record = content.config_records.get("instruction", ConfigRecord())
    if list(record) != ["json"] or not isinstance(text := record["json"], str):
        raise FederationError(UNREADABLE)
    instruction = RoundInstruction.from_json(text)  # first: it names another protocol, which may have other records
    _check_records(content, {"instruction": ConfigRecord, "arrays": ArrayRecord})
    return instruction


def arrays_of(content: RecordDict) -> Arrays:
    """The weights of a server's message, by name. Raises FederationError for anything but float32 arrays."""
    _check_records(content, {"instruction": ConfigRecord, "arrays": ArrayRecord})
    return unpack_weights(content.array_records["arrays"])


def unpack_reply(content: RecordDict, layout: MessageLayout) -> tuple[dict[str, NDArray[Any]], dict[str, float]]:
    """A reply's arrays and numbers by name. Raises FederationError unless it has this layout."""
    with_arrays: dict[str, type] = {"arrays": ArrayRecord} if layout.arrays or layout.texts else {}
    _check_records(content, {"metrics": MetricRecord} | with_arrays)
    arrays = layout.read_arrays(content.array_records["arrays"]) if with_arrays else {}
    return arrays, layout.read_numbers(content.metric_records["metrics"])


def _check_records(content: RecordDict, kinds: Mapping[str, type]) -> None:
    """Raises FederationError unless a message has exactly these records."""
    if {name: type(record) for name, record in content.items()} != kinds:
        raise FederationError(UNREADABLE)


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
    # In C order, which the other end expects; np.save would keep Fortran's.
    return ArrayRecord({name: Array(np.asarray(array, order="C")) for name, array in arrays.items()})

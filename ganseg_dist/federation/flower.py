"""What Flower's messages carry: an instruction, arrays, numbers. Both ends pack and read them here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from numpy.typing import NDArray

from ganseg_dist.errors import FederationError
from ganseg_dist.federation.round_instruction import RoundInstruction
from ganseg_dist.federation.shared_parameters import Arrays

SITES_ERRORS = range(1000, 1100)
"""Codes of the errors that a site itself answers, when its own log says why; others are Flower's and the grids'."""
CONFIG_REFUSED = 1002
"""Of them, the one that asking again does not change."""
UNREADABLE = "the message cannot be read; both ends must run the same version"


def pack_instruction(instruction: RoundInstruction, arrays: Arrays) -> RecordDict:
    """A server's message to one site."""
    return RecordDict({"instruction": ConfigRecord({"json": instruction.to_json()}), "arrays": _packed(arrays)})


def pack_reply(arrays: Mapping[str, NDArray[Any]], numbers: Mapping[str, float]) -> RecordDict:
    """A site's answer, with arrays where it sends any."""
    content = RecordDict({"metrics": MetricRecord(dict(numbers))})
    if arrays:
        content["arrays"] = _packed(arrays)
    return content


def unpack_instruction(content: RecordDict) -> RoundInstruction:
    """Raises FederationError when there is none, or none that can be read."""
    try:
        return RoundInstruction.from_json(str(content.config_records["instruction"]["json"]))
    except KeyError:
        raise FederationError(UNREADABLE) from None


def arrays_of(content: RecordDict) -> Arrays:
    """Name to array; nothing is unpickled. Raises FederationError when they cannot be read."""
    try:
        return {name: array.numpy() for name, array in content.array_records["arrays"].items()}
    except (KeyError, TypeError, ValueError, EOFError, OSError):
        raise FederationError(UNREADABLE) from None


def numbers_of(content: RecordDict) -> dict[str, float]:
    """Name to number. Raises FederationError for lists and for an answer without numbers."""
    metrics = content.metric_records.get("metrics")
    if metrics is None or any(isinstance(value, list) for value in metrics.values()):
        raise FederationError(UNREADABLE)
    return {name: value for name, value in metrics.items() if not isinstance(value, list)}


def _packed(arrays: Mapping[str, NDArray[Any]]) -> ArrayRecord:
    return ArrayRecord({name: Array(array) for name, array in arrays.items()})

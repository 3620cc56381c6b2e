"""What a hostile site replies, by kind of message, and what an honest one does, without training."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict

from ganseg_dist.config import RunConfig
from ganseg_dist.data.labels import BINARY
from ganseg_dist.federation.fingerprint.histograms import axes
from ganseg_dist.federation.flower import arrays_of, pack_reply, unpack_instruction
from ganseg_dist.federation.protocol import EVALUATE, FINGERPRINT, FINISH, PREFLIGHT, TRAIN
from ganseg_dist.federation.site_info import SiteInfo
from tests.federation.hostile.mutations import FORGED

Attack = Callable[[Message], Message]
"""Makes a reply hostile, in place."""

CONFIG = {
    "system.gan": False, "train.epochs": 2, "data.modalities": ("flair",), "data.regions": ("wt",),
    "data.size": 16, "system.widths": (4, 8),
}  # fmt: skip
"""Of the federations that are attacked."""
LOSS = "segment/supervised/segmentation"


def honest(message: Message, name: str) -> Message:
    """The reply of a site that moves every weight a little, and scores as it does."""
    instruction = unpack_instruction(message.content)
    match message.metadata.message_type:
        case "query.preflight":
            info = SiteInfo(name, 10, 12, 100, ("flair",), ("wt",), (), BINARY)
            reply = pack_reply({"description": info.description()}, info.counts())
        case "query.fingerprint":
            reply = pack_reply(fingerprint(instruction.settings, 10), {})
        case "train":
            moved = {name: array + np.float32(1e-3) for name, array in arrays_of(message.content).items()}
            reply = pack_reply(moved, {"num-examples": 80.0, LOSS: 0.5})
        case "evaluate":
            reply = pack_reply({}, {"num-examples": 3, "dice_wt": 0.8 - 0.1 * instruction.round})
        case _:
            reply = pack_reply({}, {"finished": 1})
    return Message(reply, reply_to=message)


def fingerprint(config: RunConfig, patients: int) -> dict[str, np.ndarray]:
    """All points of every histogram in its first bin."""
    points = {name: np.zeros(len(axis) + 1, np.int64) for name, axis in axes(config.data).items()}
    for array in points.values():
        array[0] = 100 * patients
    return points


def with_content(reply: Message, content: RecordDict) -> Message:
    reply.content = content
    return reply


def with_numbers(numbers: dict[str, Any], reply: Message) -> Message:
    reply.content["metrics"] = MetricRecord({**reply.content.metric_records["metrics"], **numbers})
    return reply


def with_first_array(change: Callable[[Array], Array], reply: Message) -> Message:
    arrays = dict(reply.content.array_records["arrays"].items())
    name = next(iter(arrays))
    reply.content["arrays"] = ArrayRecord({**arrays, name: change(arrays[name])})
    return reply


def with_each_array(change: Callable[[Array], Array], reply: Message) -> Message:
    arrays = reply.content.array_records["arrays"].items()
    reply.content["arrays"] = ArrayRecord({name: change(array) for name, array in arrays})
    return reply


def with_data(data: bytes, reply: Message) -> Message:
    return with_first_array(lambda array: Array(array.dtype, array.shape, array.stype, data), reply)


def with_error(code: int, reply: Message) -> Message:
    reply.__dict__.update(_content=None, _error=Error(code, FORGED))
    return reply


def claiming(header: str) -> bytes:
    text = header.encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(64)


def npz() -> bytes:
    file = io.BytesIO()
    np.savez(file, w=np.zeros(3))
    return file.getvalue()


def nan(array: Array) -> Array:
    return Array(np.full_like(array.numpy(), np.nan))


RECORDS: Mapping[str, Attack] = {
    "an empty reply": lambda reply: with_content(reply, RecordDict()),
    "other records": lambda reply: with_content(reply, RecordDict({FORGED: ConfigRecord({FORGED: FORGED})})),
    "a config for numbers": lambda reply: with_content(reply, RecordDict({"metrics": ConfigRecord({})})),
    "an error of its own": partial(with_error, 1001),
    "an unknown error": partial(with_error, 10**9),
    "Flower's error": partial(with_error, 8),
}
ARRAYS: Mapping[str, Attack] = {
    "10^6 x 10^6": partial(
        with_data, claiming("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000)}")
    ),
    "a broken header": partial(with_data, claiming("{'descr': '<f4', 'fort")),
    "200 kB of [": partial(with_data, claiming("[" * 60_000) + b"[" * 140_000),
    "npz": partial(with_data, npz()),
    "a pickle": partial(with_data, b"\x80\x04N."),
    "no bytes": partial(with_data, b""),
    "a pickle by name": partial(with_first_array, lambda a: Array(a.dtype, a.shape, "pickle", a.data)),
    "another shape": partial(with_first_array, lambda a: Array(np.zeros((2, 2), np.float32))),
    "another type": partial(with_first_array, lambda a: Array(a.numpy().astype(np.complex64))),
    "a forged type": partial(with_first_array, lambda a: Array(FORGED, a.shape, a.stype, a.data)),
    "an array more": lambda reply: with_content(
        reply,
        RecordDict(
            {
                **reply.content,
                "arrays": ArrayRecord({**reply.content.array_records["arrays"], FORGED: Array(np.zeros(3))}),
            }
        ),
    ),
}
NUMBERS: Mapping[str, Attack] = {
    f"{name!r}={value}"[:40]: partial(with_numbers, {name: value})
    for name, value in [
        *(("num-examples", value) for value in (math.inf, math.nan, -1, 10**15, 2.5, [1, 2])),
        (FORGED, 1.0),
        ("segment/supervised/../../../up", 1.0),
    ]
}
TRAINED: Mapping[str, Attack] = {
    "nan": partial(with_first_array, nan),
    "no examples": partial(with_numbers, {"num-examples": 0}),
    "more than it stated": partial(with_numbers, {"num-examples": 101}),
    "an endless loss": partial(with_numbers, {LOSS: math.inf}),
    "a loss of 10^300": partial(with_numbers, {LOSS: 1e300}),
    "losses as a list": partial(with_numbers, {LOSS: [0.5, 0.5]}),
    "another stage's loss": partial(with_numbers, {"healthy/generator/hole_l1": 0.5}),
}
SCORED: Mapping[str, Attack] = {
    "a Dice of 1.01": partial(with_numbers, {"dice_wt": 1.01}),
    "a Dice of NaN": partial(with_numbers, {"dice_wt": math.nan}),
    "a Dice of -1": partial(with_numbers, {"dice_wt": -1}),
    "more cases than it stated": partial(with_numbers, {"num-examples": 13}),
    "a region that is not trained": partial(with_numbers, {"dice_et": 0.5}),
}

COUNTS: Mapping[str, Attack] = {
    "points below 0": partial(with_first_array, lambda a: Array(a.numpy() - 1)),
    "points of 10^18": partial(with_first_array, lambda a: Array(np.full_like(a.numpy(), 10**18))),
    "no points": partial(with_first_array, lambda a: Array(np.zeros_like(a.numpy()))),
    "more patients than it stated": partial(with_each_array, lambda a: Array(a.numpy() * 2)),
}

BY_KIND: Mapping[str, Mapping[str, Attack]] = {
    PREFLIGHT: {**RECORDS, **ARRAYS, **NUMBERS},
    FINGERPRINT: {**RECORDS, **ARRAYS, **NUMBERS, **COUNTS},
    TRAIN: {**RECORDS, **ARRAYS, **NUMBERS, **TRAINED},
    EVALUATE: {**RECORDS, **NUMBERS, **SCORED},
    FINISH: {**RECORDS, **NUMBERS},
}

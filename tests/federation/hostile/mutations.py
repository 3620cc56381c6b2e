"""Seeded random damage to messages: bytes, headers, names, shapes, numbers, JSON fields and records."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

FORGED = "x\nfinished: /all/good\x1b[2J"
"""Forges a line of a log and clears a terminal: no error may repeat it."""
NUMBERS = (0, -1, 1, 2.5, 2**62, -(2**62), 1e308, -1e308, 1e-320, math.inf, -math.inf, math.nan, [], [1, 2], [math.nan])
VALUES = (*NUMBERS, None, True, "", FORGED, "../../etc", "\ud800", "[" * 5000, {}, {FORGED: 1}, [[[[]]]], 10**400)
HEADERS = (
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000), }\n",
    b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n",
    b"{'descr': '<f4', 'fortran_order': True, 'shape': (2, 2), }\n",
    b"{'descr': " + b"[" * 9000,
    b"__import__('os').system('true')",
    b"(" * 60000,
    b"",
)
TYPES = ("float32", "float64", "int8", "object", "uint8", FORGED, "")
FORMATS = ("numpy.ndarray", "pickle", "", FORGED)


def damaged_bytes(data: bytes, rng: random.Random) -> bytes:
    """The bytes with a few changed, cut, doubled or moved."""
    changed = bytearray(data)
    match rng.randrange(6):
        case 0 if changed:  # in the first bytes, where headers are
            changed[rng.randrange(min(len(changed), 128))] = rng.randrange(256)
        case 1:
            for _ in range(rng.choice((1, 3, 30))):
                if changed:
                    changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        case 2:
            return bytes(changed[: rng.randrange(len(changed) + 1)])
        case 3:
            return bytes(changed) + rng.randbytes(rng.choice((1, 64, 5000)))
        case 4:
            start = rng.randrange(len(changed) + 1)
            return bytes(changed[start:] + changed[:start])
        case _:
            text = rng.choice(HEADERS)
            return b"\x93NUMPY\x01\x00" + (len(text) % 2**16).to_bytes(2, "little") + text + bytes(changed[128:])
    return bytes(changed)


def damaged_text(text: str, rng: random.Random) -> str:
    """JSON with another value somewhere, or text that is not JSON."""
    try:
        root = json.loads(text)
    except (ValueError, RecursionError):
        root = None
    if not root or not isinstance(root, dict | list) or rng.random() < 0.3:
        return damaged_bytes(text.encode("utf-8", "replace"), rng).decode("utf-8", "replace")
    node: Any = root
    while rng.random() < 0.6:
        values = node.values() if isinstance(node, dict) else node
        inner = [value for value in values if value and isinstance(value, dict | list)]
        if not inner:
            break
        node = rng.choice(inner)
    if isinstance(node, list):
        node[rng.randrange(len(node))] = rng.choice(VALUES)
        return json.dumps(root)
    name = max(node, key=lambda name: len(str(node[name]))) if rng.random() < 0.3 else rng.choice(list(node))
    match rng.randrange(4):
        case 0:
            del node[name]
        case 1:
            node[rng.choice((FORGED, name.upper(), ""))] = rng.choice(VALUES)
        case _ if isinstance(node[name], str) and node[name].startswith("{"):  # JSON in JSON: the config
            node[name] = damaged_text(node[name], rng)
        case _:
            node[name] = rng.choice(VALUES)
    return json.dumps(root)


def damaged_array(array: Array, rng: random.Random) -> Array:
    """The array with other bytes, or with another statement about the same ones."""
    dtype, shape, stype, data = array.dtype, array.shape, array.stype, array.data
    if dtype == "uint8" and rng.random() < 0.7:  # a text
        text = damaged_text(data[128:].decode("utf-8", "replace"), rng)
        return Array(np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8))
    match rng.randrange(6):
        case 0:
            dtype = rng.choice(TYPES)
        case 1:
            shape = rng.choice(((), (0,), (-1,), (10**6, 10**6), (2**62,) * 40, (*shape, 1), shape[::-1], (True,)))
        case 2:
            stype = rng.choice(FORMATS)
        case _:
            data = damaged_bytes(data, rng)
    return Array(dtype, shape, stype, data)


def damaged_item(record: Any, old: Any, rng: random.Random) -> Any:
    """Another value for an item of a record; `old` is None for a new item."""
    match record:
        case ArrayRecord():
            return Array("float32", (), "", b"") if old is None else damaged_array(old, rng)
        case MetricRecord():
            return rng.choice(NUMBERS)
        case _:
            return damaged_text(old, rng) if isinstance(old, str) else FORGED


def damaged_record(record: Any, rng: random.Random) -> Any:
    """The record with one of its items changed, removed, renamed or added."""
    items = dict(record.items())
    name = rng.choice([*items, FORGED])
    match rng.randrange(8):
        case 0:
            items.pop(name, None)
        case 1 if name in items:
            items[rng.choice((FORGED, "", name + "x"))] = items.pop(name)
        case _:
            items[name] = damaged_item(record, items.get(name), rng)
    return type(record)(items)


def mutated(content: RecordDict, rng: random.Random) -> RecordDict:
    """A copy of a message's content with one to three changes."""
    records: dict[str, Any] = dict(content.items())
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        name = rng.choice([*records, FORGED])
        match rng.randrange(12):
            case 0:
                records.pop(name, None)
            case 1:
                records[name] = rng.choice((ArrayRecord, MetricRecord, ConfigRecord))()
            case _ if name in records:
                records[name] = damaged_record(records[name], rng)
    return RecordDict(records)

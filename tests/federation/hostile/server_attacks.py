"""What a hostile server sends: instructions that no honest one would."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from ganseg_dist.federation.protocol import RoundInstruction
from ganseg_dist.systems import recipe

FORGED = "x\n2026-01-01T00:00:00+00:00 finished: /all/good\x1b[2J"
"""Forges an entry of a site's log and clears a terminal."""
INSTRUCTION = json.loads(RoundInstruction("run", 1, 0, 0, 1, config=recipe("ganet_seg_debug").to_json()).to_json())


def with_text(text: Any) -> RecordDict:
    return RecordDict({"instruction": ConfigRecord({"json": text}), "arrays": ArrayRecord()})


def changed(**fields: Any) -> RecordDict:
    return with_text(json.dumps(INSTRUCTION | fields))


ATTACKS: Mapping[str, RecordDict] = {
    "nothing": RecordDict(),
    "no arrays": RecordDict({"instruction": ConfigRecord({"json": json.dumps(INSTRUCTION)})}),
    "other records": RecordDict({FORGED: MetricRecord({FORGED: 1}), "instruction": ArrayRecord()}),
    "numbers": with_text(1),
    "a list": with_text([json.dumps(INSTRUCTION)]),
    "bytes": with_text(json.dumps(INSTRUCTION).encode()),
    "200 kB of [": with_text("[" * 200_000),
    "1 MB": changed(config="x" * 2**20),
    "no JSON": with_text(FORGED),
    "ends before it begins": changed(first=2, until=1),
    "10^9 epochs": changed(until=10**9),
    "10^400 rounds": changed(round=10**400),
    "a round below 0": changed(round=-1),
    "an infinite round": with_text(json.dumps(INSTRUCTION | {"round": float("inf")})),
    "a path for a run": changed(run="../../etc"),
    "a forged name": changed(**{FORGED: 1}),
    "no config": changed(config=FORGED),
    "200 kB of [ for a config": changed(config="[" * 200_000),
    "a forged field": changed(config=json.dumps({FORGED: FORGED})),
    "a forged value": changed(config=json.dumps({"recipe": "ganet_seg_debug", "seed": FORGED * 1000})),
    "a forged system": changed(config=json.dumps({"recipe": "x", "system": {"name": FORGED * 1000}})),
}

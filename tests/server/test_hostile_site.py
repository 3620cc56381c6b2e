"""A site that sends nonsense costs itself its reply: the others' rounds go on, and the record names it.

The honest sites answer without training, so that every attack is a whole federation of two rounds.
"""

import io
import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict

from ganseg_dist.config import RunConfig, override
from ganseg_dist.data.labels import BINARY
from ganseg_dist.engine.checkpoint import FolderCheckpoints
from ganseg_dist.engine.tracker import Tracker
from ganseg_dist.federation.fingerprint.histograms import axes
from ganseg_dist.federation.flower import arrays_of, pack_reply, unpack_instruction
from ganseg_dist.federation.protocol import EVALUATE, FINGERPRINT, FINISH, PREFLIGHT, TRAIN
from ganseg_dist.federation.site_info import SiteInfo
from ganseg_dist.systems import recipe
from server import session
from server.grids import Answer, InProcessGrid
from server.rounds import Federation, Ledger
from server.sites import Sites

BAD = 3
NAMES = {1: "north", 2: "south", BAD: "east"}
CONFIG = {
    "system.gan": False, "train.epochs": 2, "data.modalities": ("flair",), "data.regions": ("wt",),
    "data.size": 16, "system.widths": (4, 8),
}  # fmt: skip
FORGED = "x\nfinished: /all/good\x1b[2J"
"""Forges a line of a log and clears a terminal."""
LOSS = "segment/supervised/segmentation"


class Recorded(Tracker):
    """Keeps what a terminal, a log and MLflow would get."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.names: set[str] = set()

    def warn(self, step: int, warning: str) -> None:
        self.warnings.append(warning)

    def epoch(self, step: int, scores: Any) -> None:
        self.names |= set(scores)
        assert all(math.isfinite(value) for value in scores.values())


def honest(message: Message, context: Context) -> Message:
    """A site that moves every weight a little, and scores as it does."""
    instruction = unpack_instruction(message.content)
    match message.metadata.message_type:
        case "query.preflight":
            info = SiteInfo(NAMES[context.node_id], 10, 12, 100, ("flair",), ("wt",), (), BINARY)
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


def attacked(folder: Path, kind: str, attack: Callable[[Message], Message]) -> tuple[Federation, Recorded, list[str]]:
    """A finished federation in which one site attacks by its replies of this kind, and the lines that it printed."""

    def answer(message: Message, context: Context) -> Message:
        reply = honest(message, context)
        return attack(reply) if context.node_id == BAD and message.metadata.message_type == kind else reply

    return federated(folder, answer)


def federated(folder: Path, answer: Answer, **changes: object) -> tuple[Federation, Recorded, list[str]]:
    """A finished federation of the sites that answer so."""
    lines: list[str] = []
    tracker = Recorded()
    sites = Sites(InProcessGrid(answer, {node: {} for node in NAMES}), 60.0, lines.append)
    config = override(recipe("ganet_seg_debug"), CONFIG | changes)
    trained = Federation("f", config, sites, FolderCheckpoints(folder / "checkpoints"), tracker, least_sites=2)
    trained.enrol()
    session._collect(trained)
    trained.run()
    return trained, tracker, lines


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


def with_data(data: bytes, reply: Message) -> Message:
    return with_first_array(lambda array: Array(array.dtype, array.shape, array.stype, data), reply)


def with_error(code: int, reply: Message) -> Message:
    failed = Message(Error(code, FORGED), reply_to=reply)
    failed.metadata.__dict__["_reply_to_message_id"] = reply.metadata.reply_to_message_id
    return failed


def claiming(header: str) -> bytes:
    text = header.encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(64)


def npz() -> bytes:
    file = io.BytesIO()
    np.savez(file, w=np.zeros(3))
    return file.getvalue()


def nan(array: Array) -> Array:
    return Array(np.full_like(array.numpy(), np.nan))


RECORDS = {
    "an empty reply": lambda reply: with_content(reply, RecordDict()),
    "other records": lambda reply: with_content(reply, RecordDict({FORGED: ConfigRecord({FORGED: FORGED})})),
    "a config for numbers": lambda reply: with_content(reply, RecordDict({"metrics": ConfigRecord({})})),
    "an error of its own": partial(with_error, 1001),
    "an unknown error": partial(with_error, 10**9),
    "Flower's error": partial(with_error, 8),
}
ARRAYS = {
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
NUMBERS = {
    f"{name!r}={value}"[:40]: partial(with_numbers, {name: value})
    for name, value in [
        *(("num-examples", value) for value in (math.inf, math.nan, -1, 10**15, 2.5, [1, 2])),
        (FORGED, 1.0),
        ("segment/supervised/../../../up", 1.0),
    ]
}
TRAINED = {
    "nan": partial(with_first_array, nan),
    "no examples": partial(with_numbers, {"num-examples": 0}),
    "more than it stated": partial(with_numbers, {"num-examples": 101}),
    "an endless loss": partial(with_numbers, {LOSS: math.inf}),
    "a loss of 10^300": partial(with_numbers, {LOSS: 1e300}),
    "losses as a list": partial(with_numbers, {LOSS: [0.5, 0.5]}),
    "another stage's loss": partial(with_numbers, {"healthy/generator/hole_l1": 0.5}),
}
SCORED = {
    "a Dice of 1.01": partial(with_numbers, {"dice_wt": 1.01}),
    "a Dice of NaN": partial(with_numbers, {"dice_wt": math.nan}),
    "a Dice of -1": partial(with_numbers, {"dice_wt": -1}),
    "more cases than it stated": partial(with_numbers, {"num-examples": 13}),
    "a region that is not trained": partial(with_numbers, {"dice_et": 0.5}),
}


def check_nothing_forged(trained: Federation, tracker: Recorded, lines: list[str]) -> None:
    """Nothing that the site chose is in a log, in the record, or in a name."""
    stored = json.dumps(trained.ledger.model_dump(), allow_nan=False)
    assert Ledger.model_validate_json(stored).rounds
    for text in (*tracker.warnings, *lines, *tracker.names, *(left.reason for left in trained.ledger.quarantined)):
        assert text.isprintable()
        assert "finished" not in text
    assert tracker.names == {LOSS, "segment/dice_wt"}


@pytest.mark.parametrize("attack", (attacks := RECORDS | ARRAYS | NUMBERS | TRAINED).values(), ids=attacks)
def test_rounds_go_on_without_site_whose_update_is_nonsense(attack, tmp_path):
    trained, tracker, lines = attacked(tmp_path, TRAIN, attack)
    assert [list(record.sites) for record in trained.ledger.rounds] == [["north", "south"]] * 2
    assert [(left.site, left.round, left.kind) for left in trained.ledger.quarantined] == [
        ("east", 1, "train"),
        ("east", 2, "train"),
    ]
    assert [line for line in tracker.warnings if line.startswith("round 2: east: ") and line.endswith("; left out")]
    check_nothing_forged(trained, tracker, lines)


@pytest.mark.parametrize("attack", (attacks := RECORDS | NUMBERS | SCORED).values(), ids=attacks)
def test_rounds_use_no_scores_of_site_whose_scores_are_nonsense(attack, tmp_path):
    trained, tracker, lines = attacked(tmp_path, EVALUATE, attack)
    for record in trained.ledger.rounds:
        assert list(record.sites) == ["east", "north", "south"]
        assert record.sites["east"].scores == {}
        assert record.scores == {"dice_wt": pytest.approx(0.8 - 0.1 * record.round)}
    assert [(left.site, left.round, left.kind) for left in trained.ledger.quarantined] == [
        ("east", 1, "evaluate"),
        ("east", 2, "evaluate"),
    ]
    assert [line for line in tracker.warnings if line.startswith("round 2: east: its scores are not used: ")]
    check_nothing_forged(trained, tracker, lines)


@pytest.mark.parametrize("attack", (attacks := RECORDS | NUMBERS).values(), ids=attacks)
def test_finish_goes_on_without_site_whose_reply_is_nonsense(attack, tmp_path):
    trained, tracker, lines = attacked(tmp_path, FINISH, attack)
    assert [line for line in tracker.warnings if line.startswith("east: saved no model: ")]
    check_nothing_forged(trained, tracker, lines)


COUNTS = {
    "points below 0": partial(with_first_array, lambda a: Array(a.numpy() - 1)),
    "points of 10^18": partial(with_first_array, lambda a: Array(np.full_like(a.numpy(), 10**18))),
    "no points": partial(with_first_array, lambda a: Array(np.zeros_like(a.numpy()))),
    "more patients than it stated": lambda reply: with_content(
        reply, pack_reply(fingerprint(override(recipe("ganet_seg_debug"), CONFIG), 11), {})
    ),
}


@pytest.mark.parametrize("attack", (attacks := RECORDS | ARRAYS | NUMBERS | COUNTS).values(), ids=attacks)
def test_sites_are_compared_without_one_whose_fingerprint_is_nonsense(attack, tmp_path):
    trained, tracker, lines = attacked(tmp_path, FINGERPRINT, attack)
    assert [(left.site, left.round, left.kind) for left in trained.ledger.quarantined] == [("east", 0, "fingerprint")]
    assert [line for line in tracker.warnings if line.startswith("east: its data are not compared with the others: ")]
    check_nothing_forged(trained, tracker, lines)


@pytest.mark.parametrize("attack", (attacks := RECORDS | ARRAYS | NUMBERS).values(), ids=attacks)
def test_sites_train_without_node_whose_answer_is_nonsense(attack, tmp_path):
    trained, tracker, lines = attacked(tmp_path, PREFLIGHT, attack)
    assert [list(record.sites) for record in trained.ledger.rounds] == [["north", "south"]] * 2
    assert [line for line in tracker.warnings if line.startswith("node 3: takes no part: ")]
    check_nothing_forged(trained, tracker, lines)


def test_rounds_choose_best_by_capped_share_of_lying_site(tmp_path):
    """The honest scores fall; a site that claims the largest count and a Dice of 1 in the second round has a half."""
    calls = []

    def lie(reply: Message) -> Message:
        calls.append(1)
        return with_numbers({"num-examples": 12, "dice_wt": float(len(calls) == 2)}, reply)

    trained, _, _ = attacked(tmp_path, EVALUATE, lie)
    assert [record.scores["dice_wt"] for record in trained.ledger.rounds] == [
        pytest.approx(0.5 * 0.0 + 0.5 * 0.7),
        pytest.approx(0.5 * 1.0 + 0.5 * 0.6),
    ]


def test_rounds_keep_last_weights_where_one_site_alone_scores(tmp_path):
    """The honest sites withhold theirs. The liar's Dice falls: by its scores the first round would be the best."""

    def answer(message: Message, context: Context) -> Message:
        reply = honest(message, context)
        withholds = message.metadata.message_type == EVALUATE and context.node_id != BAD
        return with_content(reply, pack_reply({}, {})) if withholds else reply

    trained, _, _ = federated(tmp_path, answer)
    assert [record.scores for record in trained.ledger.rounds] == [{}, {}]
    assert [record.sites["east"].scores for record in trained.ledger.rounds] == [
        {"dice_wt": pytest.approx(0.7)},
        {"dice_wt": pytest.approx(0.6)},
    ]
    assert trained.state.position.history[-1].scores == {}
    assert trained.ledger.quarantined == []


PRIVATE = {"federation.privacy.noise_multiplier": 1e-3, "federation.privacy.clip_norm": 1.0, "train.ema": None}


@pytest.mark.parametrize("slices", [0, 100])
def test_rounds_leave_out_site_that_stated_no_slices_under_privacy(slices, tmp_path):
    """Its share of the noised mean is 0, which divided by the sum of all shares to its right."""

    def answer(message: Message, context: Context) -> Message:
        reply = honest(message, context)
        match message.metadata.message_type:
            case "query.preflight" if context.node_id == BAD:
                return with_numbers({"slices": slices}, reply)
            case "train":
                return with_content(reply, RecordDict({**reply.content, "metrics": MetricRecord()}))
        return reply

    trained, tracker, _ = federated(tmp_path, answer, **PRIVATE)
    takes_part = slices > 0
    assert ["east" in record.sites for record in trained.ledger.rounds] == [takes_part, takes_part]
    assert bool([line for line in tracker.warnings if line.startswith("round 1: east: ")]) is not takes_part
    assert trained.releases is not None
    assert trained.releases.shares == pytest.approx(
        {"east": slices / (200 + slices), "north": 100 / (200 + slices), "south": 100 / (200 + slices)}
    )

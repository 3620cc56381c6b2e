"""A site that sends nonsense costs itself its reply: the others' rounds go on, and the record names it.

The honest sites answer without training, so that every attack is a whole federation of two rounds.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, Message, MetricRecord, RecordDict

from ganseg_dist.config import override
from ganseg_dist.engine.checkpoint import FolderCheckpoints
from ganseg_dist.federation.flower import pack_reply
from ganseg_dist.federation.protocol import EVALUATE, FINGERPRINT, FINISH, PREFLIGHT, TRAIN
from ganseg_dist.systems import recipe
from server import federated_run
from server.grids import Answer, InProcessGrid
from server.rounds import Federation, Ledger
from server.sites import Sites
from tests.federation.hostile.site_attacks import BY_KIND, CONFIG, LOSS, honest, with_content, with_error, with_numbers
from tests.server.registered import registry
from tests.trackers import WarningTracker

BAD = 3
NAMES = {1: "north", 2: "south", BAD: "east"}


class Recorded(WarningTracker):
    """Keeps the names of scores too, whose values are finite."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def epoch(self, step: int, scores: Any) -> None:
        self.names |= set(scores)
        assert all(math.isfinite(value) for value in scores.values())


def attacked(folder: Path, kind: str, attack: Callable[[Message], Message]) -> tuple[Federation, Recorded, list[str]]:
    """A finished federation in which one site attacks by its replies of this kind, and the lines that it printed."""

    def answer(message: Message, context: Context) -> Message:
        reply = honest(message, NAMES[context.node_id])
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
    federated_run._collect(trained)
    trained.run()
    return trained, tracker, lines


def check_nothing_forged(trained: Federation, tracker: Recorded, lines: list[str]) -> None:
    """Nothing that the site chose is in a log, in the record, or in a name."""
    stored = json.dumps(trained.ledger.model_dump(), allow_nan=False)
    assert Ledger.model_validate_json(stored).rounds
    for text in (*tracker.warnings, *lines, *tracker.names, *(left.reason for left in trained.ledger.quarantined)):
        assert text.isprintable()
        assert "finished" not in text
    assert tracker.names == {LOSS, "segment/dice_wt"}


@pytest.mark.parametrize("attack", BY_KIND[TRAIN].values(), ids=BY_KIND[TRAIN])
def test_rounds_go_on_without_site_whose_update_is_nonsense(attack, tmp_path):
    trained, tracker, lines = attacked(tmp_path, TRAIN, attack)
    assert [list(record.sites) for record in trained.ledger.rounds] == [["north", "south"]] * 2
    assert [(left.site, left.round, left.kind) for left in trained.ledger.quarantined] == [
        ("east", 1, "train"),
        ("east", 2, "train"),
    ]
    assert [line for line in tracker.warnings if line.startswith("round 2: east: ") and line.endswith("; left out")]
    check_nothing_forged(trained, tracker, lines)


@pytest.mark.parametrize("attack", BY_KIND[EVALUATE].values(), ids=BY_KIND[EVALUATE])
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


@pytest.mark.parametrize("attack", BY_KIND[FINISH].values(), ids=BY_KIND[FINISH])
def test_finish_goes_on_without_site_whose_reply_is_nonsense(attack, tmp_path):
    trained, tracker, lines = attacked(tmp_path, FINISH, attack)
    assert [line for line in tracker.warnings if line.startswith("east: saved no model: ")]
    check_nothing_forged(trained, tracker, lines)


def test_finish_repeats_request_to_site_that_was_down(tmp_path):
    requested: list[int] = []

    def answer(message: Message, context: Context) -> Message:
        reply = honest(message, NAMES[context.node_id])
        if message.metadata.message_type == FINISH:
            requested.append(context.node_id)
            return with_error(8, reply) if requested.count(BAD) == 1 and context.node_id == BAD else reply
        return reply

    _, tracker, lines = federated(tmp_path, answer)
    assert requested == [1, 2, BAD, BAD]
    assert "asking 1 site to save its model" in lines
    assert not [line for line in tracker.warnings if "saved no model" in line]


@pytest.mark.parametrize("attack", BY_KIND[FINGERPRINT].values(), ids=BY_KIND[FINGERPRINT])
def test_sites_are_compared_without_one_whose_fingerprint_is_nonsense(attack, tmp_path):
    trained, tracker, lines = attacked(tmp_path, FINGERPRINT, attack)
    assert [(left.site, left.round, left.kind) for left in trained.ledger.quarantined] == [("east", 0, "fingerprint")]
    assert [line for line in tracker.warnings if line.startswith("east: its data are not compared with the others: ")]
    check_nothing_forged(trained, tracker, lines)


@pytest.mark.parametrize("attack", BY_KIND[PREFLIGHT].values(), ids=BY_KIND[PREFLIGHT])
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
        reply = honest(message, NAMES[context.node_id])
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
        reply = honest(message, NAMES[context.node_id])
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


def test_rounds_do_not_count_a_site_twice_that_rejects_and_is_then_revoked(tmp_path):
    """Two members are left of three, and both answer: the one that rejected is no longer among them."""
    keys = registry(tmp_path, NAMES)
    tried: list[int] = []

    def answer(message: Message, context: Context) -> Message:
        reply = honest(message, NAMES[context.node_id])
        if message.metadata.message_type == TRAIN:
            tried.append(context.node_id)
            if context.node_id == BAD:
                return with_error(1002, reply)
            if context.node_id == 1 and tried.count(1) == 1:
                return with_content(reply, RecordDict())
        return reply

    class Revokes(Recorded):
        """The operator revokes the key of the site that rejected, before the round is requested again."""

        def warn(self, step: int, warning: str) -> None:
            super().warn(step, warning)
            if "east: the site rejects" in warning:
                keys.revoke("east")

    sites = Sites(InProcessGrid(answer, {node: {} for node in NAMES}), 60.0, registry=keys)
    config = override(recipe("ganet_seg_debug"), CONFIG | {"federation.quorum": 0.6})
    trained = Federation("f", config, sites, FolderCheckpoints(tmp_path / "c"), Revokes(), least_sites=3)
    trained.enrol()
    trained.run()
    assert tried[:5] == [1, 2, BAD, 1, 2]
    assert [list(record.sites) for record in trained.ledger.rounds] == [["north", "south"]] * 2

"""Requests to sites: deadlines, membership and validation of replies."""

import json
import time
from collections.abc import Iterable, Mapping
from typing import Any

import httpx
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Error, Message, MetricRecord, RecordDict
from flwr.superlink.grid import HttpGrid

from ganseg_dist.data.labels import BINARY
from ganseg_dist.errors import FederationError
from ganseg_dist.federation.flower import unpack_instruction, unpack_reply
from ganseg_dist.federation.message_layout import MessageLayout
from ganseg_dist.federation.protocol import PREFLIGHT, RoundInstruction
from ganseg_dist.federation.versions import PROTOCOL, PROTOCOL_CODES
from server import requests
from server import sites as module
from server.grids import Answer, InProcessGrid
from server.inbox import read_reply
from server.requests import Answers
from server.sites import Sites, ignore_line, poll_pause
from tests.server.registered import fingerprint, registry

INSTRUCTION = RoundInstruction("f", 1, 0, 0, 1)
COUNTS = {"patients": 3, "cases": 4, "slices": 50}
INFO = {"name": "north", "modalities": ["flair"], "regions": ["wt"], "classes": [], "labels": BINARY.to_json()}


class SilentGrid(InProcessGrid):
    """A grid in which some messages are never answered."""

    def __init__(self, answer: Answer, nodes: Iterable[int], silent: set[tuple[str, int]]) -> None:
        super().__init__(answer, {node: {} for node in nodes})
        self.silent = silent

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        answered = {
            number: message
            for number, message in self.waiting.items()
            if (message.metadata.message_type, message.metadata.dst_node_id) not in self.silent
        }
        return super().pull_messages(number for number in message_ids if number in answered)


def to_all(node: int) -> RoundInstruction:
    return INSTRUCTION


def empty_reply(message: Message, _: Any) -> Message:
    return Message(RecordDict(), reply_to=message)


def site_reply(counts: Mapping[str, Any], info: Any) -> RecordDict:
    text = np.frombuffer((info if isinstance(info, str) else json.dumps(info)).encode(), np.uint8)
    return RecordDict({"metrics": MetricRecord(dict(counts)), "arrays": ArrayRecord({"description": Array(text)})})


def test_sites_ask_does_not_wait_for_site_that_missed_deadline():
    grid = SilentGrid(empty_reply, (1, 2), {("train", 2), ("evaluate", 2)})
    sites = Sites(grid, deadline_seconds=0.5)
    assert set(sites.ask("train", INSTRUCTION, {}, [1, 2])) == {1}
    sites.deadline_seconds = 3600.0
    assert set(sites.ask("evaluate", INSTRUCTION, {}, [1, 2])) == {1}, "nor does a request of another kind"
    grid.silent.remove(("evaluate", 2))
    assert set(sites.ask("evaluate", INSTRUCTION, {}, [1, 2])) == {1, 2}
    assert set(sites.ask("train", INSTRUCTION, {}, [1, 2])) == {1}, "it can score and still not train"


def test_sites_ask_waits_again_for_site_that_replied():
    grid = SilentGrid(empty_reply, (1, 2), {("train", 2)})
    sites = Sites(grid, deadline_seconds=0.5)
    sites.ask("train", INSTRUCTION, {}, [1, 2])
    grid.silent.clear()
    assert 2 in sites.ask("train", INSTRUCTION, {}, [2])
    grid.silent.add(("train", 1))
    sites.deadline_seconds = 0.5
    assert set(sites.ask("train", INSTRUCTION, {}, [1, 2])) == {2}


def test_sites_enrol_stores_info_of_members():
    sites = Sites(InProcessGrid(lambda message, _: Message(site_reply(COUNTS, INFO), reply_to=message), {1: {}}), 5.0)
    sites.enrol(to_all, 1, ignore_line)
    member = sites.members[1]
    assert (member.name, member.patients, member.cases, member.slices) == ("north", 3, 4, 50)
    assert (member.modalities, member.regions, member.classes) == (("flair",), ("wt",), ())


def test_sites_enrol_rejects_second_site_of_same_name():
    nodes: dict[int, dict[str, str]] = {1: {}, 2: {}}
    sites = Sites(InProcessGrid(lambda message, _: Message(site_reply(COUNTS, INFO), reply_to=message), nodes), 5.0)
    sites.enrol(to_all, 1, ignore_line)
    assert list(sites.members) == [1]
    assert "another site has its name" in sites.rejecting[2]


@pytest.mark.parametrize(
    ("counts", "info"),
    [
        (COUNTS | {"cases": -1}, INFO),
        (COUNTS | {"cases": 1.5}, INFO),
        (COUNTS | {"cases": 10**15}, INFO),
        (COUNTS | {"slices": float("inf")}, INFO),
        (COUNTS | {"slices": [50, 50]}, INFO),
        (COUNTS | {"patients": 5}, INFO),
        (COUNTS | {"x\nfinished": 5}, INFO),
        (COUNTS, "[" * 60_000),
        (COUNTS, json.dumps(INFO | {"name": "\ud800"})),
        (COUNTS, "x" * 2**17),
        ({"cases": 1}, INFO),
        (COUNTS, INFO | {"name": "\x1b[2Jnorth"}),
        (COUNTS, INFO | {"regions": ["x" * 1000]}),
        (COUNTS, INFO | {"more": 1}),
        (COUNTS, ["north"]),
    ],
    ids=[
        "negative", "no count", "absurd", "infinite", "a list", "more patients than cases", "another number", "deep",
        "half a letter", "too many bytes", "missing", "an escape", "too long", "more than agreed", "no object",
    ],
)  # fmt: skip
def test_sites_enrol_rejects_malformed_site_info(counts, info):
    sites = Sites(InProcessGrid(lambda message, _: Message(site_reply(counts, info), reply_to=message), {1: {}}), 5.0)
    sites.enrol(to_all, 0, ignore_line)
    assert sites.members == {}
    assert "must run the same" in sites.rejecting[1]


LINK = 1
"""The node id under which Flower's server answers for a node that is gone."""


def unavailable_reply(message: Message, context: object) -> Message:
    reply = Message(Error(3, "Node Unavailable"), reply_to=message)
    reply.metadata.__dict__["_src_node_id"] = LINK
    return reply


def test_sites_ask_attributes_unavailable_reply_to_its_node():
    sites = Sites(InProcessGrid(unavailable_reply, {7: {}, 9: {}}), deadline_seconds=5)
    replies = sites.ask("train", RoundInstruction("run", 1, 0, 0, 1), {}, [7, 9])
    assert {node: reply.error.reason for node, reply in replies.items()} == dict.fromkeys((7, 9), "Node Unavailable")


def test_sites_ask_does_not_wait_for_unsent_message():
    class Full(InProcessGrid):
        def push_messages(self, messages):
            return [None if place == 0 else name for place, name in enumerate(super().push_messages(messages))]

    sites = Sites(Full(unavailable_reply, {7: {}, 9: {}}), deadline_seconds=5)
    assert set(sites.ask("train", RoundInstruction("run", 1, 0, 0, 1), {}, [7, 9])) == {9}


def rejects_first(after: int) -> Answer:
    """Node 2 rejects the config `after` times, then joins."""
    rejections = []

    def answer(message: Message, context: Any) -> Message:
        if context.node_id == 2 and len(rejections) < after:
            rejections.append(1)
            return Message(Error(1002, "the site rejects the config"), reply_to=message)
        name = {1: "north", 2: "south"}[context.node_id]
        return Message(site_reply(COUNTS, INFO | {"name": name}), reply_to=message)

    return answer


def test_sites_enrol_repeats_request_until_enough_sites_join(monkeypatch):
    monkeypatch.setattr(module, "ASK_AGAIN_SECONDS", 0.3)
    lines: list[str] = []
    warned: list[str] = []
    sites = Sites(InProcessGrid(rejects_first(2), {1: {}, 2: {}}), 3600.0, write_line=lines.append)
    sites.enrol(to_all, 2, warned.append)
    assert [member.name for member in sites.members.values()] == ["north", "south"]
    assert sites.rejecting == {}
    assert warned == ["node 2: takes no part: the site rejects the config"]
    assert lines[0] == "asking 2 nodes whether to take part"
    assert [line.split("; waiting ")[0] for line in lines[2:-1]] == ["1 of 2 required sites joined (north)"] * 2
    assert lines[-1] == "south takes part, with 3 patients"


def test_sites_enrol_stops_when_enough_sites_join(monkeypatch):
    monkeypatch.setattr(module, "ASK_AGAIN_SECONDS", 0.0)
    sites = Sites(InProcessGrid(rejects_first(1), {1: {}, 2: {}}), 60.0)
    for _ in range(2):
        sites.enrol(to_all, 1, ignore_line)
    assert list(sites.members) == [1]


def test_sites_enrol_raises_with_reasons_at_deadline(monkeypatch):
    monkeypatch.setattr(module, "ASK_AGAIN_SECONDS", 0.1)
    sites = Sites(InProcessGrid(rejects_first(1000), {1: {}, 2: {}}), 0.5)
    with pytest.raises(FederationError, match=r"1 of 2 required sites joined \(north\); node 2: the site rejects the"):
        sites.enrol(to_all, 2, ignore_line)


def test_sites_enrol_raises_at_once_in_simulation_with_line_of_site_log(tmp_path):
    folders = {name: tmp_path / name for name in ("north", "south")}
    for folder in folders.values():
        folder.mkdir()
    (folders["south"] / "site.log").write_text("2026-01-01T00:00:00+00:00 old\n2026-01-02T00:00:00+00:00 no T1 here\n")
    sites = Sites(InProcessGrid(rejects_first(1000), {1: {}, 2: {}}), 3600.0, folders=folders)
    with pytest.raises(FederationError, match=r"joined \(north\); south: no T1 here$"):
        sites.enrol(to_all, 2, ignore_line)


class MalformedGrid(HttpGrid):
    """Flower's grid of a SuperLink, which raises for the reply of a node whose objects are malformed."""

    def __init__(self, malformed: Exception, of_others: Exception | None = None) -> None:
        self.inner = InProcessGrid(empty_reply, {1: {}, 2: {}, 3: {}})
        self.malformed = malformed
        self.of_others = of_others

    def get_node_ids(self) -> Iterable[int]:
        if self.of_others is not None:
            raise self.of_others
        return self.inner.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        return self.inner.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        names = list(message_ids)
        if any(self.inner.waiting[name].metadata.dst_node_id == 2 for name in names):
            raise self.malformed
        return self.inner.pull_messages(names)


def http_error(status: int) -> httpx.HTTPStatusError:
    request = httpx.Request("POST", "https://hub")
    return httpx.HTTPStatusError("", request=request, response=httpx.Response(status, request=request))


@pytest.mark.parametrize(
    "malformed",
    [
        http_error(500),
        http_error(400),
        ValueError(),
        KeyError("0" * 64),
        TypeError(),
        RecursionError(),
        UnicodeDecodeError("utf-8", b"", 0, 0, ""),
    ],
)
def test_sites_ask_keeps_replies_beside_malformed_one(malformed):
    replies = Sites(MalformedGrid(malformed), deadline_seconds=5).ask("train", INSTRUCTION, {}, [1, 2, 3])
    assert set(replies) == {1, 2, 3}
    with pytest.raises(FederationError, match="cannot be read"):
        read_reply(replies[2], lambda content: unpack_reply(content, MessageLayout("version")))


def test_sites_ask_raises_error_of_connection():
    with pytest.raises(ConnectionError):
        Sites(MalformedGrid(ConnectionError()), deadline_seconds=5).ask("train", INSTRUCTION, {}, [1, 2, 3])


@pytest.mark.parametrize("of_others", [http_error(500), httpx.ConnectError("")])
def test_sites_ask_raises_error_of_a_superlink_that_answers_nothing(of_others):
    with pytest.raises(type(of_others)):
        Sites(MalformedGrid(http_error(500), of_others), deadline_seconds=5).ask("train", INSTRUCTION, {}, [1, 2, 3])


FORGED = "no data\nfinished: /all/good\x1b[2J"


@pytest.mark.parametrize("code", [1001, 1000, 999, 3, -1, 10**9])
def test_sites_show_no_text_of_error_reply(code):
    warned: list[str] = []
    sites = Sites(InProcessGrid(lambda message, _: Message(Error(code, FORGED), reply_to=message), {1: {}}), 5.0)
    sites.enrol(to_all, 0, warned.append)
    shown = [*warned, *sites.rejecting.values(), sites.failure("north", Error(code, FORGED))]
    assert not [line for line in shown if "good" in line or not line.isprintable()]


def test_sites_name_protocol_of_site_that_runs_another():
    warned: list[str] = []
    sites = Sites(InProcessGrid(lambda message, _: Message(Error(2007, FORGED), reply_to=message), {1: {}}), 5.0)
    sites.enrol(to_all, 0, warned.append)
    assert "the site runs protocol 7, which is newer" in warned[0]


def test_last_log_line_is_printable(tmp_path):
    (tmp_path / "site.log").write_text("2026-01-01T00:00:00+00:00 no T1\x1b[2J here\n")
    assert Sites(SilentGrid(empty_reply, (), set()), 5.0, folders={"north": tmp_path}).last_log_line("north") == (
        r"no T1\x1b[2J here"
    )


# A registered name belongs to its key.


def named(names: Mapping[int, str], **info: str) -> InProcessGrid:
    """A grid whose nodes join under these names."""

    def answer(message: Message, context: Any) -> Message:
        return Message(site_reply(COUNTS, INFO | {"name": names[context.node_id]} | info), reply_to=message)

    return InProcessGrid(answer, {node: {} for node in names})


def test_sites_enrol_rejects_a_registered_node_that_takes_anothers_name_first(tmp_path):
    warned: list[str] = []
    sites = Sites(named({1: "south", 2: "south"}), 5.0, registry=registry(tmp_path, {1: "north", 2: "south"}))
    sites.enrol(to_all, 1, warned.append)
    assert {node: info.name for node, info in sites.members.items()} == {2: "south"}
    (warning,) = warned
    assert warning.startswith(f"north ({fingerprint('north')[:19]}): takes no part: it calls itself south, and its key")
    assert "registered as north" in warning


def test_sites_enrol_rejects_a_node_that_is_not_registered(tmp_path):
    sites = Sites(named({1: "north", 3: "west"}), 5.0, registry=registry(tmp_path, {1: "north"}))
    sites.enrol(to_all, 1, ignore_line)
    assert list(sites.members) == [1]
    assert "registered under no name" in sites.rejecting[3]


def test_sites_ask_leaves_out_a_site_whose_key_is_revoked_in_a_run(tmp_path):
    lines: list[str] = []
    keys = registry(tmp_path, {1: "north", 2: "south"})
    sites = Sites(named({1: "north", 2: "south"}), 5.0, lines.append, registry=keys)
    sites.enrol(to_all, 2, ignore_line)
    keys.revoke("south")
    assert set(sites.ask("train", INSTRUCTION, {}, [1, 2])) == {1}
    assert (list(sites.members), list(sites.revoked)) == ([1], [2])
    assert lines[-2].startswith("south takes part no more: the key of south (SHA256:")
    sites.enrol(to_all, 1, ignore_line)
    assert list(sites.members) == [1]


def test_sites_ask_drops_the_reply_of_a_site_whose_key_is_revoked_meanwhile(tmp_path):
    keys = registry(tmp_path, {1: "north", 2: "south"})
    sites = Sites(named({1: "north", 2: "south"}), 5.0, registry=keys)
    sites.enrol(to_all, 2, ignore_line)
    replies = sites.ask(
        "train", INSTRUCTION, {}, show=lambda answers: None if answers.pending else keys.revoke("south")
    )
    assert set(replies) == {1}


# Versions.


def test_sites_enrol_warns_once_of_a_site_with_other_code():
    warned: list[str] = []
    sites = Sites(named({1: "north"}, code="ab" * 32, version="0.2.0"), 5.0)
    for _ in range(2):
        sites.enrol(to_all, 1, warned.append)
        sites.members.clear()
    (warning,) = warned
    assert warning.startswith("north runs other code (ganseg-dist 0.2.0, code abababababab; here")


@pytest.mark.parametrize(
    ("protocol", "remedy"),
    [(PROTOCOL - 1, "upgrade the site to ganseg-dist"), (PROTOCOL + 1, "upgrade ganseg-dist here to the version of")],
)
def test_sites_enrol_names_the_site_of_another_protocol_and_which_end_to_upgrade(tmp_path, protocol, remedy):
    def answer(message: Message, _: Any) -> Message:
        return Message(Error(PROTOCOL_CODES[protocol], "any text"), reply_to=message)

    warned: list[str] = []
    sites = Sites(InProcessGrid(answer, {1: {}}), 5.0, registry=registry(tmp_path, {1: "north"}))
    sites.enrol(to_all, 0, warned.append)
    (warning,) = warned
    assert warning.startswith(f"north ({fingerprint('north')[:19]}): takes no part: the site runs protocol {protocol}")
    assert remedy in warning
    assert "any text" not in warning


# Joining is off the path of a round.


def joins_as_node(message: Message, context: Any) -> Message:
    return Message(site_reply(COUNTS, INFO | {"name": f"site{context.node_id}"}), reply_to=message)


SILENT_2 = {(PREFLIGHT, 2)}


@pytest.mark.parametrize("grace", [0.0, 1.0])
def test_sites_enrol_waits_for_unknown_node_no_longer_than_grace(monkeypatch, grace):
    monkeypatch.setattr(module, "GRACE_SECONDS", grace)
    sites = Sites(SilentGrid(joins_as_node, (1, 2), SILENT_2), 3600.0)
    began = time.monotonic()
    sites.enrol(to_all, 1, ignore_line)
    assert list(sites.members) == [1]
    assert grace <= time.monotonic() - began < grace + 5


def test_sites_enrol_waits_for_expected_node_until_deadline(monkeypatch):
    monkeypatch.setattr(module, "GRACE_SECONDS", 0.0)
    sites = Sites(SilentGrid(joins_as_node, (1, 2), SILENT_2), 1.0, expected={2})
    began = time.monotonic()
    sites.enrol(to_all, 1, ignore_line)
    assert list(sites.members) == [1]
    assert time.monotonic() - began > 1.0


def test_sites_enrol_names_nodes_that_have_not_answered(monkeypatch):
    monkeypatch.setattr(module, "ASK_AGAIN_SECONDS", 0.3)
    lines: list[str] = []
    sites = Sites(SilentGrid(joins_as_node, (1, 2), SILENT_2), 1.0, lines.append)
    with pytest.raises(
        FederationError, match=r"1 of 2 required sites joined \(site1\); no answer yet from node 2 \(1 s\)"
    ):
        sites.enrol(to_all, 2, ignore_line)
    assert "1 of 2 required sites joined (site1); no answer yet from node 2 (0 s); waiting 1 s more at most" in lines


def test_sites_invite_never_waits_and_takes_late_reply_in(monkeypatch):
    monkeypatch.setattr(module, "GRACE_SECONDS", 0.0)
    grid = SilentGrid(joins_as_node, (1, 2), set(SILENT_2))
    sites = Sites(grid, 3600.0)
    sites.enrol(to_all, 1, ignore_line)
    began = time.monotonic()
    sites.invite(to_all, ignore_line)
    assert time.monotonic() - began < 1
    assert sites.pending_text() == "node 2 (0 s)"
    sent = grid.sent
    grid.silent.clear()
    sites.invite(to_all, ignore_line)
    assert list(sites.members) == [1, 2]
    assert grid.sent == sent, "the open request was answered, not repeated"


def test_sites_ask_collects_late_reply_of_joining_node_for_the_next_round(monkeypatch):
    """Flower drops a reply with its request, so that it must be fetched while a long round runs."""
    monkeypatch.setattr(module, "GRACE_SECONDS", 0.0)
    grid = SilentGrid(joins_as_node, (1, 2, 3), {(PREFLIGHT, 2), (PREFLIGHT, 3), ("train", 1)})
    sites = Sites(grid, 0.5)
    sites.enrol(to_all, 1, ignore_line)
    grid.silent.discard((PREFLIGHT, 2))
    assert sites.ask("train", INSTRUCTION, {}) == {}
    assert list(sites.members) == [1], "it gets no request to score a round in which it did not train"
    grid.silent.add((PREFLIGHT, 2))
    sites.invite(to_all, ignore_line)
    assert list(sites.members) == [1, 2]


def test_sites_invite_repeats_request_that_flower_dropped(monkeypatch):
    monkeypatch.setattr(module, "GRACE_SECONDS", 0.0)
    grid = SilentGrid(joins_as_node, (1, 2), set(SILENT_2))
    sites = Sites(grid, 0.5)
    sites.enrol(to_all, 1, ignore_line)
    sent = grid.sent
    time.sleep(0.6)
    sites.invite(to_all, ignore_line)
    assert grid.sent == sent + 1


def test_sites_begin_again_drops_replies_to_earlier_config(monkeypatch):
    monkeypatch.setattr(module, "GRACE_SECONDS", 0.0)
    grid = SilentGrid(joins_as_node, (1, 2), set(SILENT_2))
    sites = Sites(grid, 3600.0)
    sites.enrol(to_all, 1, ignore_line)
    assert [member.name for member in sites.members.values()] == ["site1"]
    sites.begin_again()
    assert (sites.members, sites.joining, sites.expected) == ({}, {}, {1})
    configs: dict[int, str] = {}

    def record(message: Message, context: Any) -> Message:
        configs[context.node_id] = unpack_instruction(message.content).config
        return joins_as_node(message, context)

    grid.answer = record
    grid.silent.clear()
    sites.enrol(lambda node: RoundInstruction("f", 0, 0, 0, 0, config=f"agreed, for {node}"), 2, ignore_line)
    assert configs == {1: "agreed, for 1", 2: "agreed, for 2"}


def test_sites_ask_names_sites_that_answered_failed_and_are_pending(monkeypatch):
    monkeypatch.setattr(requests, "STATUS_SECONDS", 0.3)

    def answer(message: Message, context: Any) -> Message:
        if message.metadata.message_type == PREFLIGHT or context.node_id == 1:
            return joins_as_node(message, context)
        return Message(Error(1000, "the site failed"), reply_to=message)

    lines: list[str] = []
    shown: list[Answers] = []
    sites = Sites(SilentGrid(answer, (1, 2, 3), {("train", 3)}), 1.0)
    sites.enrol(to_all, 3, ignore_line)
    sites.write_line = lines.append
    sites.ask("train", INSTRUCTION, {}, label="round 1 of 2", show=shown.append)
    assert lines == [
        "round 1 of 2: site1 has answered after 0 s; waiting for site2, site3",
        "round 1 of 2: site2 has failed after 0 s; waiting for site3",
        *[line for line in lines if line.startswith("round 1 of 2: waiting for site3 (")],
    ]
    assert "round 1 of 2: waiting for site3 (0 s), 1 s more at most" in lines
    assert list(shown[-1].seconds) == ["site1", "site2"]
    assert shown[-1].pending == ("site3",)
    assert shown[-1].waiting_for() == "waiting for site3 (1 s)"


def test_answers_waiting_for_shortens_long_lists():
    answers = Answers({}, ("a", "b", "c"), 125.0)
    assert answers.waiting_for(2) == "waiting for a, b and 1 more (2 min 5 s)"
    assert Answers({"a": 1.0}, (), 2.0).waiting_for() == ""


@pytest.mark.parametrize(
    ("waited", "left", "pause"),
    [
        (0.0, 600.0, 0.2),
        (5.0, 600.0, 0.2),
        (50.0, 600.0, 1.0),
        (500.0, 600.0, 2.0),
        (599.0, 1.0, 1.0),
        (600.0, -1.0, 0.2),
    ],
)
def test_poll_pause_grows_with_waiting_and_ends_at_deadline(waited, left, pause):
    assert poll_pause(waited, left) == pytest.approx(pause)

"""Asking sites: who is waited for, who is taken in, and what is believed."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Error, Message, MetricRecord, RecordDict

from ganseg_dist.data.labels import BINARY
from ganseg_dist.errors import FederationError
from ganseg_dist.federation.protocol import RoundInstruction
from server import sites as module
from server.grids import Answer, InProcessGrid
from server.sites import Sites, ignore_line

INSTRUCTION = RoundInstruction("f", 1, 0, 0, 1)
COUNTS = {"patients": 3, "cases": 4, "slices": 50}
WORDS = {"name": "north", "modalities": ["flair"], "regions": ["wt"], "classes": [], "labels": BINARY.to_json()}


class SilentGrid(InProcessGrid):
    """A grid in which some messages are never answered."""

    def __init__(self, answer: Answer, nodes: Iterable[int], silent: set[tuple[str, int]]) -> None:
        super().__init__(answer, {node: {} for node in nodes})
        self.silent = silent

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        heard = {
            number: message
            for number, message in self.waiting.items()
            if (message.metadata.message_type, message.metadata.dst_node_id) not in self.silent
        }
        return super().pull_messages(number for number in message_ids if number in heard)


def nothing(message: Message, _: Any) -> Message:
    return Message(RecordDict(), reply_to=message)


def said(counts: Mapping[str, Any], words: Any) -> RecordDict:
    text = np.frombuffer(json.dumps(words).encode(), np.uint8)
    return RecordDict({"metrics": MetricRecord(dict(counts)), "arrays": ArrayRecord({"words": Array(text)})})


def test_a_site_that_missed_a_deadline_is_asked_and_not_waited_for():
    sites = Sites(SilentGrid(nothing, (1, 2), {("train", 2)}), deadline_seconds=0.5)
    assert set(sites.ask("train", INSTRUCTION, {}, [1, 2])) == {1}
    assert set(sites.ask("evaluate", INSTRUCTION, {}, [1, 2])) == {1, 2}
    sites.deadline_seconds = 3600.0
    assert set(sites.ask("train", INSTRUCTION, {}, [1, 2])) == {1}, (
        "who cannot train may score, and still is not waited for"
    )


def test_a_site_that_answers_again_is_waited_for_again():
    grid = SilentGrid(nothing, (1, 2), {("train", 2)})
    sites = Sites(grid, deadline_seconds=0.5)
    sites.ask("train", INSTRUCTION, {}, [1, 2])
    grid.silent.clear()
    assert 2 in sites.ask("train", INSTRUCTION, {}, [2])
    grid.silent.add(("train", 1))
    sites.deadline_seconds = 0.5
    assert set(sites.ask("train", INSTRUCTION, {}, [1, 2])) == {2}


def test_sites_that_say_yes_are_members():
    sites = Sites(InProcessGrid(lambda message, _: Message(said(COUNTS, WORDS), reply_to=message), {1: {}}), 5.0)
    sites.enrol(INSTRUCTION, 1, ignore_line)
    member = sites.members[1]
    assert (member.name, member.patients, member.cases, member.slices) == ("north", 3, 4, 50)
    assert (member.modalities, member.regions, member.classes) == (("flair",), ("wt",), ())


def test_a_second_site_of_a_name_is_refused():
    nodes: dict[int, dict[str, str]] = {1: {}, 2: {}}
    sites = Sites(InProcessGrid(lambda message, _: Message(said(COUNTS, WORDS), reply_to=message), nodes), 5.0)
    sites.enrol(INSTRUCTION, 1, ignore_line)
    assert list(sites.members) == [1]
    assert "another site has its name" in sites.rejecting[2]


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        (COUNTS | {"cases": -1}, WORDS),
        (COUNTS | {"cases": 1.5}, WORDS),
        ({"cases": 1}, WORDS),
        (COUNTS, WORDS | {"name": "\x1b[2Jnorth"}),
        (COUNTS, WORDS | {"regions": ["x" * 1000]}),
        (COUNTS, WORDS | {"more": 1}),
        (COUNTS, ["north"]),
    ],
    ids=["negative", "no count", "missing", "an escape", "too long", "more than agreed", "no words"],
)
def test_what_no_site_says_is_not_believed(counts, words):
    sites = Sites(InProcessGrid(lambda message, _: Message(said(counts, words), reply_to=message), {1: {}}), 5.0)
    sites.enrol(INSTRUCTION, 0, ignore_line)
    assert sites.members == {}
    assert "must run the same" in sites.rejecting[1]


LINK = 1
"""The node id under which Flower's server answers for a node that is gone."""


def gone(message: Message, context: object) -> Message:
    reply = Message(Error(3, "Node Unavailable"), reply_to=message)
    reply.metadata.__dict__["_src_node_id"] = LINK
    return reply


def test_an_answer_for_a_node_that_is_gone_is_that_nodes():
    sites = Sites(InProcessGrid(gone, {7: {}, 9: {}}), deadline_seconds=5)
    replies = sites.ask("train", RoundInstruction("run", 1, 0, 0, 1), {}, [7, 9])
    assert {node: reply.error.reason for node, reply in replies.items()} == dict.fromkeys((7, 9), "Node Unavailable")


def test_a_message_that_could_not_be_pushed_is_not_waited_for():
    class Full(InProcessGrid):
        def push_messages(self, messages):
            return [None if place == 0 else name for place, name in enumerate(super().push_messages(messages))]

    sites = Sites(Full(gone, {7: {}, 9: {}}), deadline_seconds=5)
    assert set(sites.ask("train", RoundInstruction("run", 1, 0, 0, 1), {}, [7, 9])) == {9}


def mended(after: int) -> Answer:
    """Node 2 says no so many times, then yes."""
    said_no = []

    def answer(message: Message, context: Any) -> Message:
        if context.node_id == 2 and len(said_no) < after:
            said_no.append(1)
            return Message(Error(1002, "the site rejects the config"), reply_to=message)
        name = {1: "north", 2: "south"}[context.node_id]
        return Message(said(COUNTS, WORDS | {"name": name}), reply_to=message)

    return answer


def test_who_refused_is_told_once_and_asked_again_while_too_few_said_yes(monkeypatch):
    monkeypatch.setattr(module, "ASK_AGAIN_SECONDS", 0.3)
    lines: list[str] = []
    warned: list[str] = []
    sites = Sites(InProcessGrid(mended(2), {1: {}, 2: {}}), 3600.0, write_line=lines.append)
    sites.enrol(INSTRUCTION, 2, warned.append)
    assert [member.name for member in sites.members.values()] == ["north", "south"]
    assert sites.rejecting == {}
    assert warned == ["node 2: takes no part: the site rejects the config"]
    assert lines[0] == "asking 2 nodes whether to take part"
    assert lines.count("1 of 2 required sites joined (north); waiting 60 min more at most") == 2
    assert lines[-1] == "south takes part, with 3 patients"


def test_nobody_is_asked_again_where_enough_said_yes(monkeypatch):
    monkeypatch.setattr(module, "ASK_AGAIN_SECONDS", 0.0)
    sites = Sites(InProcessGrid(mended(1), {1: {}, 2: {}}), 60.0)
    for _ in range(2):
        sites.enrol(INSTRUCTION, 1, ignore_line)
    assert list(sites.members) == [1]


def test_too_few_say_who_and_why_at_the_deadline(monkeypatch):
    monkeypatch.setattr(module, "ASK_AGAIN_SECONDS", 0.1)
    sites = Sites(InProcessGrid(mended(1000), {1: {}, 2: {}}), 0.5)
    with pytest.raises(FederationError, match=r"1 of 2 required sites joined \(north\); node 2: the site rejects the"):
        sites.enrol(INSTRUCTION, 2, ignore_line)


def test_a_simulation_in_which_too_few_say_yes_ends_at_once_with_the_sites_own_words(tmp_path):
    homes = {name: tmp_path / name for name in ("north", "south")}
    for home in homes.values():
        home.mkdir()
    (homes["south"] / "site.log").write_text("2026-01-01T00:00:00+00:00 old\n2026-01-02T00:00:00+00:00 no T1 here\n")
    sites = Sites(InProcessGrid(mended(1000), {1: {}, 2: {}}), 3600.0, folders=homes)
    with pytest.raises(FederationError, match=r"joined \(north\); south: no T1 here$"):
        sites.enrol(INSTRUCTION, 2, ignore_line)

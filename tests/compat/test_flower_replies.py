"""A reply of few bytes that would be built into many, that is slow, or whose objects are not there."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import PullObjectResponse
from flwr.proto.runtime_pb2 import PullAppMessagesResponse
from flwr.supercore.constant import HEAD_BODY_DIVIDER
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.superlink.grid import HttpGrid, http_grid

from ganseg_dist.compat import flower_replies as module
from ganseg_dist.compat.flower import identify_server, set_message_id
from ganseg_dist.compat.flower_replies import inflated_bytes, pull_reply

LARGEST = 10_000
ARRAYS = {"w": Array(np.zeros((20, 10), np.float32)), "b": Array(np.arange(5))}
HONEST = RecordDict({"arrays": ArrayRecord(ARRAYS), "metrics": MetricRecord({"loss": 1.0}), "c": ConfigRecord()})
BYTES = sum(len(array.data) for array in ARRAYS.values())


def contents_of(content: RecordDict) -> dict[str, bytes]:
    return {object_id: part.deflate() for object_id, part in get_all_nested_objects(content).items()}


def with_body(content: bytes, body: object) -> bytes:
    """An object whose head stays and whose body is this JSON."""
    head = content.partition(HEAD_BODY_DIVIDER)[0].decode().split(" ")
    text = json.dumps(body).encode()
    return " ".join([*head[:-1], str(len(text))]).encode() + HEAD_BODY_DIVIDER + text


def spoilt(change: str, times: int) -> dict[str, bytes]:
    """The objects of HONEST, of which one repeats what it names."""
    contents = contents_of(HONEST)
    record = HONEST.array_records["arrays"]
    spoil = {
        "chunks": (
            record["w"].object_id,
            {"dtype": "float32", "shape": [20, 10], "stype": "numpy.ndarray", "arraychunk_ids": [0] * times},
        ),
        "arrays": (
            record.object_id,
            {f"n{place}": array.object_id for place in range(times) for array in record.values()},
        ),
        "records": (HONEST.object_id, {f"n{place}": record.object_id for place in range(times)}),
    }
    object_id, body = spoil[change]
    return contents | {object_id: with_body(contents[object_id], body)}


def test_inflated_bytes_are_those_of_the_arrays():
    headers = 100 * len(ARRAYS)  # a chunk's, which it has with it
    assert BYTES <= inflated_bytes(contents_of(HONEST)) <= BYTES + headers
    assert inflated_bytes(contents_of(RecordDict({"metrics": MetricRecord({"loss": 1.0})}))) == 0


@pytest.mark.parametrize("change", ["chunks", "arrays", "records"])
def test_inflated_bytes_count_repeated_objects_each_time(change):
    assert inflated_bytes(spoilt(change, 100_000)) > 100_000 * 100


class Pulled(HttpGrid):
    """Flower's grid, with a SuperLink that has one message of these contents."""

    def __init__(self, content: RecordDict, **changed: bytes) -> None:
        super().__init__(token="secret")
        identify_server(7)
        self._run = SimpleNamespace(run_id=7)
        self.message = Message(content, dst_node_id=3, message_type="train")
        set_message_id(self.message, self.message.object_id)
        parts = get_all_nested_objects(self.message)
        self.contents = {object_id: part.deflate() for object_id, part in parts.items()} | changed
        self.requested: list[str] = []
        self._client = SimpleNamespace(
            PullMessages=self.pull, PullObject=self.object, ConfirmMessageReceived=lambda request: None
        )

    def pull(self, request):
        listed = [message_to_proto(remove_content_from_message(self.message))]
        return PullAppMessagesResponse(messages_list=listed, message_object_trees=[get_object_tree(self.message)])

    def object(self, request):
        self.requested.append(request.object_id)
        content = self.contents[request.object_id]
        return PullObjectResponse(object_found=True, object_available=content != b"", object_content=content)


def is_unreadable(reply: Message | None) -> bool:
    return reply is not None and (reply.has_error() or not reply.content)


def test_pull_reply_builds_an_honest_reply():
    plain = (http_grid.pull_objects, http_grid.inflate_object_from_contents)
    reply = pull_reply(Pulled(HONEST), "1", LARGEST)
    assert reply is not None
    np.testing.assert_array_equal(reply.content.array_records["arrays"]["b"].numpy(), np.arange(5))
    assert (http_grid.pull_objects, http_grid.inflate_object_from_contents) == plain


@pytest.mark.parametrize("change", ["chunks", "arrays", "records"])
def test_pull_reply_builds_no_array_that_repeats_its_chunks(change, monkeypatch):
    grid = Pulled(HONEST, **spoilt(change, 1000))
    monkeypatch.setattr(Array, "inflate", lambda *args, **options: pytest.fail("is built"))
    assert is_unreadable(pull_reply(grid, "1", LARGEST))


def test_pull_reply_stops_receiving_a_reply_that_is_too_large():
    many = RecordDict({"arrays": ArrayRecord({f"a{n}": Array(np.full(1000, n)) for n in range(50)})})
    grid = Pulled(many)
    assert is_unreadable(pull_reply(grid, "1", LARGEST))
    assert len(grid.requested) < 10 < len(grid.contents)


def test_pull_reply_waits_for_objects_that_are_not_there_no_longer_than_its_limit(monkeypatch):
    chunk = next(iter(get_all_nested_objects(HONEST)))
    monkeypatch.setattr(module, "SECONDS", 0.2)
    monkeypatch.setattr(module, "BYTES_A_SECOND", 2**40)
    began = time.monotonic()
    assert is_unreadable(pull_reply(Pulled(HONEST, **{chunk: b""}), "1", LARGEST))
    assert time.monotonic() - began < 10


def test_pull_reply_stops_receiving_a_reply_that_is_too_slow(monkeypatch):
    monkeypatch.setattr(module, "SECONDS", -1.0 - LARGEST / module.BYTES_A_SECOND)
    grid = Pulled(HONEST)
    assert is_unreadable(pull_reply(grid, "1", LARGEST))
    assert len(grid.requested) < len(grid.contents)

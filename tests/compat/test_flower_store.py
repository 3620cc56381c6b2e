"""What a hostile node registers at a real SuperLink stops neither the server's messages nor other nodes' replies."""

from __future__ import annotations

import datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import PullMessagesRequest, PushMessagesRequest
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import PullAppMessagesRequest, PushAppMessagesRequest
from flwr.supercore.constant import NOOP_FEDERATION_ID, TaskType
from flwr.supercore.date import now
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.object_store.sql_object_store import SqlObjectStore
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.config_loader import get_federation_manager, get_objectstore_linkstate_factories
from flwr.superlink.servicer.fleet import fleet_handlers
from flwr.superlink.servicer.runtime import runtime_handlers

from ganseg_dist.compat import flower_store
from ganseg_dist.compat.flower import set_message_id

WEIGHTS = ArrayRecord({"w": Array(np.arange(4, dtype=np.float32)), "b": Array(np.zeros(2, np.float32))})
SERVER, BAD, GOOD = 0, 1, 2


def leaf(object_id: str) -> ObjectTree:
    return ObjectTree(object_id=object_id)


def as_text(tree: ObjectTree) -> tuple:
    return tree.object_id, tuple(sorted(as_text(child) for child in tree.children))


class Link:
    """A SuperLink's handlers with a database of their own, a run, and two nodes."""

    def __init__(self, database: Path) -> None:
        manager = get_federation_manager(is_simulation=False)
        _, states = get_objectstore_linkstate_factories(str(database), manager)
        self.state = states.state()
        self.run = self.state.create_run(None, None, None, {}, NOOP_FEDERATION_ID, None, "none", TaskType.SERVER_APP)
        self.nodes = [1, *(self.state.create_node("none", "none", f"key {place}".encode(), 30.0) for place in (1, 2))]
        for node in self.nodes[1:]:
            self.state.activate_node(node, 3600.0)
        self.task = SimpleNamespace(run_id=self.run)

    def message(self, content: RecordDict, to: int) -> Message:
        """The server's message of this content to a node."""
        message = Message(content, dst_node_id=self.nodes[to], message_type="train", ttl=600.0)
        set_message_id(message, message.object_id)
        return message

    def send(self, message: Message) -> None:
        """The server registers a message and uploads all of it that the SuperLink lacks."""
        session, missing = self.register(message)
        self.upload(message, session, missing)

    def register(self, message: Message) -> tuple[str, set[str]]:
        request = PushAppMessagesRequest(
            messages_list=[message_to_proto(remove_content_from_message(message))],
            message_object_trees=[get_object_tree(message)],
        )
        response = runtime_handlers.push_messages(request, self.state, self.task)
        assert list(response.message_ids) == [message.metadata.message_id]
        return response.session_id, set(response.objects_to_push)

    def upload(self, message: Message, session: str, objects: set[str]) -> None:
        for object_id, part in get_all_nested_objects(message).items():
            if object_id in objects:
                assert self.state.store_object(self.run, session, object_id, part.deflate())

    def reply(self, to: Message, content: RecordDict) -> Message:
        reply = Message(content, reply_to=to)
        set_message_id(reply, reply.object_id)
        return reply

    def register_reply(self, reply: Message, tree: ObjectTree | None = None) -> tuple[str, set[str]]:
        """A node registers its reply with the tree of its objects or, if it is hostile, with another."""
        request = PushMessagesRequest(
            node=Node(node_id=reply.metadata.src_node_id),
            messages_list=[message_to_proto(remove_content_from_message(reply))],
            message_object_trees=[get_object_tree(reply) if tree is None else tree],
        )
        response = fleet_handlers.push_messages(request, self.state)
        return response.session_id, set(response.objects_to_push)

    def delivered(self, *messages: Message) -> list[tuple]:
        """Trees of the replies to these messages that the server gets now."""
        request = PullAppMessagesRequest(message_ids=[message.metadata.message_id for message in messages])
        response = runtime_handlers.pull_messages(request, self.state, self.task)
        return [as_text(tree) for tree in response.message_object_trees]

    def received(self, node: int) -> list[tuple]:
        """Trees of the messages that a node gets now."""
        request = PullMessagesRequest(node=Node(node_id=self.nodes[node]))
        response = fleet_handlers.pull_messages(request, self.state, self.state.object_store)
        return [as_text(tree) for tree in response.message_object_trees]


@pytest.fixture
def link(tmp_path, monkeypatch) -> Link:
    for owner, names in (
        (runtime_handlers, ("push_messages", "pull_messages")),
        (SqlObjectStore, ("preregister", "put")),
    ):
        for name in names:
            monkeypatch.setattr(owner, name, getattr(owner, name))
    monkeypatch.setattr(fleet_handlers, "check_abort", lambda *args: None)
    flower_store.protect_store()
    made = Link(tmp_path / "superlink.db")
    for name, value in (("_run_id", made.run), ("_node_id", 1), ("_task_id", 0)):
        monkeypatch.setattr(TaskIdentity, name, value)
    return made


def instruction(number: int) -> RecordDict:
    """A round's: the same weights, and its number."""
    return RecordDict({"arrays": WEIGHTS, "config": ConfigRecord({"round": number})})


def scores(value: float) -> RecordDict:
    """A reply's content; the record without arrays is the same in every site's."""
    return RecordDict({"arrays": ArrayRecord(), "metrics": MetricRecord({"dice": value})})


def test_server_gets_a_reply_when_all_of_it_has_arrived(link):
    to_bad, to_good = link.message(instruction(1), BAD), link.message(instruction(1), GOOD)
    for message in (to_bad, to_good):
        link.send(message)
    slow, reply = link.reply(to_bad, scores(0.1)), link.reply(to_good, scores(0.2))
    session, missing = link.register_reply(slow)
    link.upload(reply, *link.register_reply(reply))
    assert link.delivered(to_bad) == []
    assert link.delivered(to_bad, to_good) == [as_text(get_object_tree(reply))]
    *most, last = sorted(missing)
    link.upload(slow, session, set(most))
    assert link.delivered(to_bad) == []
    link.upload(slow, session, {last})
    assert link.delivered(to_bad) == [as_text(get_object_tree(slow))]


def test_server_gets_a_reply_whose_upload_was_abandoned(link, monkeypatch):
    """Flower then answers each request for its objects at once, that they are not there."""
    message = link.message(instruction(1), BAD)
    link.send(message)
    reply = link.reply(message, scores(0.1))
    link.register_reply(reply)
    assert link.delivered(message) == []
    later = now() + datetime.timedelta(minutes=4)
    monkeypatch.setattr(flower_store, "now", lambda: later)
    assert link.delivered(message) == [as_text(get_object_tree(reply))]


@pytest.mark.parametrize("uploaded", [False, True])
def test_server_sends_objects_that_a_node_registered_without_children(link, uploaded):
    """A node that has a round's weights knows the ids of the next one's records."""
    first = link.message(instruction(1), BAD)
    link.send(first)
    after = link.message(instruction(2), GOOD)
    (record,) = get_object_tree(after).children
    hostile = link.reply(first, scores(0.1))
    session, missing = link.register_reply(
        hostile, ObjectTree(object_id=hostile.object_id, children=[leaf(record.object_id)])
    )
    assert record.object_id in missing
    if uploaded:  # it has the content, too, and is not believed that the record has no children
        assert not link.state.store_object(link.run, session, record.object_id, after.content.deflate())
    link.send(after)
    assert link.received(GOOD) == [as_text(get_object_tree(after))]


def test_no_node_changes_what_the_server_registers_while_it_uploads(link):
    first = link.message(instruction(1), BAD)
    link.send(first)
    after = link.message(instruction(2), GOOD)
    session, missing = link.register(after)
    (record,) = get_object_tree(after).children
    hostile = link.reply(first, scores(0.1))
    with pytest.raises(ValueError, match="different children"):
        link.register_reply(hostile, ObjectTree(object_id=hostile.object_id, children=[leaf(record.object_id)]))
    assert link.received(GOOD) == [as_text(get_object_tree(after))]
    link.upload(after, session, missing)


@pytest.mark.parametrize("when", ["before", "during", "both"])
def test_node_replies_with_an_object_to_which_another_gives_children(link, when):
    to_bad, to_good = link.message(instruction(1), BAD), link.message(instruction(1), GOOD)
    for message in (to_bad, to_good):
        link.send(message)
    reply, hostile = link.reply(to_good, scores(0.2)), link.reply(to_bad, scores(0.1))
    no_arrays = ObjectTree(object_id=reply.content["arrays"].object_id, children=[leaf("f" * 64)])
    attack = ObjectTree(object_id=hostile.object_id, children=[no_arrays])
    if when != "during":
        link.register_reply(hostile, attack)
    session, missing = link.register_reply(reply)
    if when != "before":
        link.register_reply(hostile, attack)
    link.upload(reply, session, missing)
    assert link.delivered(to_good) == [as_text(get_object_tree(reply))]
    with pytest.raises(ValueError, match="different children"):  # its content is there by now
        link.register_reply(hostile, attack)


def test_messages_of_two_rounds_share_objects(link):
    """The second round's weights are there already; when a node confirms the first, they stay."""
    first, second = (link.message(instruction(number), GOOD) for number in (1, 2))
    link.send(first)
    _, missing = link.register(second)
    assert WEIGHTS.object_id not in missing
    link.state.object_store.delete(first.object_id)
    assert WEIGHTS.object_id in link.state.object_store
    link.state.object_store.delete(second.object_id)
    assert WEIGHTS.object_id not in link.state.object_store


def test_objects_are_counted_as_often_as_they_are_children(link):
    """So that none is deleted while a message needs it, nor kept for ever."""
    first = link.message(instruction(1), BAD)
    link.send(first)
    after = link.message(instruction(2), GOOD)
    (record,) = get_object_tree(after).children
    hostile = link.reply(first, scores(0.1))
    link.register_reply(hostile, ObjectTree(object_id=hostile.object_id, children=[leaf(record.object_id)]))
    link.send(after)
    for message in (hostile, first):
        link.state.object_store.delete(message.object_id)
    assert link.received(GOOD) == [as_text(get_object_tree(after))]
    link.state.object_store.delete(after.object_id)
    assert len(link.state.object_store) == 0


def test_deliver_complete_replies_requests_missing_replies_at_intervals(monkeypatch):
    """Else a reply that is registered between the two looks is delivered before it is uploaded."""
    requested: list[list[str]] = []
    replies: dict[str, set[str]] = {"complete": set(), "incomplete": set()}
    monkeypatch.setattr(
        runtime_handlers, "pull_messages", lambda request, state, task: requested.append(request.message_ids)
    )
    monkeypatch.setattr(flower_store, "_replies", lambda state, message_ids: tuple(replies.values()))
    flower_store._deliver_complete_replies()
    request = SimpleNamespace(message_ids=["a", "b"])
    for complete, incomplete in ((set(), set()), (set(), {"a"}), (set(), set()), ({"a"}, set())):
        replies.update(complete=complete, incomplete=incomplete)
        runtime_handlers.pull_messages(request, None, None)
    assert requested == [["a", "b"], [], [], ["a"]]

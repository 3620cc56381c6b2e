"""Messages between a server and nodes through Flower's own SuperLink, in this process, one of the nodes hostile."""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import ActivateNodeRequest, PushMessagesRequest
from flwr.proto.message_pb2 import PushObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.constant import NOOP_FEDERATION_ID, TaskType
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
from flwr.supercore.object_store.sql_object_store import SqlObjectStore
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supercore.protobuf import client as protobuf_client
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid import HttpGrid
from flwr.superlink.main import create_app
from flwr.superlink.servicer.fleet import fleet_handlers
from flwr.superlink.servicer.runtime import runtime_handlers
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor
from starlette.testclient import TestClient

from ganseg_dist.compat import flower
from ganseg_dist.compat.flower import set_message_id
from ganseg_dist.compat.flower_store import protect_store
from ganseg_dist.federation.protocol import RoundInstruction
from server.sites import Sites

WEIGHTS = {"w": np.arange(6, dtype=np.float32)}
SCORE = RecordDict({"metrics": MetricRecord({"dice": 0.5}), "arrays": ArrayRecord({"w": Array(WEIGHTS["w"])})})
INSTRUCTION = RoundInstruction("f", 1, 0, 0, 1)


class Hospital:
    """A node's requests, signed with its key."""

    def __init__(self, state) -> None:
        key = ec.generate_private_key(ec.SECP384R1())
        public = public_key_to_bytes(key.public_key())
        state.create_node("none", "none", public, 0)
        interceptors = [
            RuntimeVersionHttpInterceptor(component_name="SuperNode"),
            NodeAuthHttpInterceptor(key, key.public_key()),
        ]
        self.client = FleetHttpClient.from_server_address("hub:9092", False, None, interceptors)
        self.number = self.client.ActivateNode(ActivateNodeRequest(public_key=public, heartbeat_interval=1800)).node_id

    def reply(self, message: Message, upload: bool = True, **times: float) -> None:
        """Answer one message with SCORE."""
        reply = Message(SCORE, reply_to=message)
        reply.metadata.__dict__["_src_node_id"] = self.number
        set_message_id(reply, reply.object_id)
        sent = message_to_proto(remove_content_from_message(reply))
        for name, value in times.items():
            setattr(sent.metadata, name, value)
        node = Node(node_id=self.number)
        response = self.client.PushMessages(
            PushMessagesRequest(
                node=node,
                messages_list=[sent],
                message_object_trees=[get_object_tree(reply)],
                clientapp_runtime_list=[1.0],
            )
        )
        for object_id, part in get_all_nested_objects(reply).items() if upload else ():
            if object_id in response.objects_to_push:
                done = self.client.PushObject(
                    PushObjectRequest(
                        node=node, run_id=reply.metadata.run_id, object_id=object_id,
                        object_content=part.deflate(), session_id=response.session_id,
                    )
                )  # fmt: skip
                assert done.stored


class Answering(HttpGrid):
    """Flower's grid of a run, whose nodes answer as soon as they get a message."""

    def __init__(self, state, answers) -> None:
        run = state.create_run(None, None, None, {}, NOOP_FEDERATION_ID, None, "none", TaskType.SERVER_APP)
        (task,) = state.get_tasks(run_ids=[run])
        super().__init__("hub:9092", token=state.claim_task(task.task_id))
        assert state.activate_task(task.task_id)
        self._run = SimpleNamespace(run_id=run)
        self.answers = answers

    def push_messages(self, messages):
        listed = list(messages)
        ids = list(super().push_messages(listed))
        for message in listed:
            self.answers[message.metadata.dst_node_id](message)
        return ids


@pytest.fixture
def superlink(tmp_path, monkeypatch) -> Iterator[TestClient]:
    for owner, names in (
        (runtime_handlers, ("push_messages", "pull_messages")),
        (fleet_handlers, ("push_messages",)),
        (SqlObjectStore, ("preregister", "put")),
    ):
        for name in names:
            monkeypatch.setattr(owner, name, getattr(owner, name))
    monkeypatch.setattr("flwr.superlink.main.get_ee_linkstate_db", lambda: str(tmp_path / "superlink.db"))
    app = create_app()
    app.state.enable_supernode_auth = True
    with TestClient(app, base_url="https://hub:9092", raise_server_exceptions=False) as client:
        monkeypatch.setattr(client, "close", lambda: None)
        monkeypatch.setattr(protobuf_client.httpx, "Client", lambda **_: client)
        yield client


def replies_to_request(superlink: TestClient, monkeypatch, attack) -> dict[str, Message]:
    """The replies of an honest node and of one that answers by this attack, by name."""
    state = superlink.app.state.linkstate_factory.state()
    honest, hostile = Hospital(state), Hospital(state)
    grid = Answering(state, {honest.number: honest.reply, hostile.number: lambda message: attack(hostile, message)})
    for name, value in (("_run_id", grid._run.run_id), ("_node_id", 1), ("_task_id", 0)):
        monkeypatch.setattr(TaskIdentity, name, value)
    names = {honest.number: "honest", hostile.number: "hostile"}
    sites = Sites(grid, deadline_seconds=4.0)
    replies = sites.ask("train", INSTRUCTION, WEIGHTS, sorted(names, key=lambda node: names[node]))
    return {names[node]: reply for node, reply in replies.items()}


def check_honest(reply: Message) -> None:
    np.testing.assert_array_equal(reply.content.array_records["arrays"]["w"].numpy(), WEIGHTS["w"])


def test_server_gets_replies_of_both_nodes(superlink, monkeypatch):
    flower._reject_messages_of_others()
    protect_store()
    replies = replies_to_request(superlink, monkeypatch, lambda node, message: node.reply(message))
    for name in ("honest", "hostile"):
        check_honest(replies[name])


def test_server_gets_other_replies_while_one_is_not_uploaded(superlink, monkeypatch):
    flower._reject_messages_of_others()
    protect_store()
    replies = replies_to_request(superlink, monkeypatch, lambda node, message: node.reply(message, upload=False))
    check_honest(replies["honest"])
    assert list(replies) == ["honest"]


def test_superlink_takes_no_late_reply_for_an_error_of_its_node(superlink, monkeypatch):
    """Of a reply after its deadline, the time that it has left is negative."""
    flower._reject_messages_of_others()
    replies = replies_to_request(
        superlink, monkeypatch, lambda node, message: node.reply(message, upload=False, ttl=-1.0)
    )
    check_honest(replies["honest"])
    assert "hostile" not in replies or replies["hostile"].has_error()


def test_superlink_rejects_times_that_are_no_numbers(superlink, monkeypatch):
    flower._reject_messages_of_others()
    rejected: list[int] = []

    def attack(node: Hospital, message: Message) -> None:
        with pytest.raises(protobuf_client.httpx.HTTPStatusError) as raised:
            node.reply(message, ttl=math.nan)
        rejected.append(raised.value.response.status_code)

    replies = replies_to_request(superlink, monkeypatch, attack)
    check_honest(replies["honest"])
    assert rejected == [400]


def test_server_goes_on_without_a_reply_that_the_superlink_cannot_read(superlink, monkeypatch):
    """Here it stores NaN, as Flower does by itself; each request for the reply is then an error."""
    replies = replies_to_request(superlink, monkeypatch, lambda node, message: node.reply(message, ttl=math.nan))
    check_honest(replies["honest"])
    assert not replies["hostile"].content

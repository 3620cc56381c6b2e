"""The private names of Flower that compat/flower.py touches; tests/deploy tests what they do with real processes."""

import math

import httpx
import pytest
from flwr.app import Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import PARTITION_ID_KEY, Status, SubStatus
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.message_pb2 import Metadata, ObjectTree
from flwr.proto.node_pb2 import Node
from flwr.supercore.object_store.sql_object_store import SqlObjectStore
from flwr.supercore.primitives.asymmetric import generate_key_pairs
from flwr.supercore.protobuf.client import ProtobufRequestContext
from flwr.superlink import cli as link_cli
from flwr.superlink import extensions
from flwr.superlink import main as superlink
from flwr.superlink.grid import InMemoryGrid
from flwr.superlink.routers.fleet import router as fleet_router
from flwr.superlink.servicer.fleet import fleet_handlers
from flwr.superlink.servicer.runtime import runtime_handlers
from flwr.supernode import cli as node_cli
from flwr.supernode import fleet_http_connection as node_connection
from flwr.supernode import start_client_internal
from flwr.supernode.runtime import run_clientapp as node
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from ganseg_dist.compat import flower
from server.grids import InProcessGrid


def test_run_clientapp_unpacks_no_bundle_and_loads_the_installed_app(monkeypatch):
    checked, loaded = [], []

    def task() -> None:
        node.install_from_fab(b"bundle", skip_prompt=True)
        load = node.get_load_client_app_fn(default_app_ref="", app_path=None, multi_app=True)
        loaded.append(load("publisher/name", "1.0", "hash"))

    for name in ("install_from_fab", "get_load_client_app_fn"):
        monkeypatch.setattr(node, name, lambda *args, **options: pytest.fail("Flower's own"))
    monkeypatch.setattr(node_cli, "flwr_clientapp", task)
    app = ClientApp()
    flower.run_clientapp(app, checked.append)
    assert checked == [b"bundle"]
    assert loaded == [app]


def test_run_supernode_reads_no_settings_of_a_bundle(monkeypatch):
    read = []
    names = vars(start_client_internal)
    monkeypatch.setattr(start_client_internal, "get_fused_config_from_fab", lambda *args: pytest.fail("Flower's own"))
    monkeypatch.setattr(node_connection, "NodeAuthHttpInterceptor", node_connection.NodeAuthHttpInterceptor)
    monkeypatch.setattr(
        node_cli, "flower_supernode", lambda: read.append(names["get_fused_config_from_fab"](b"no zip", None))
    )
    flower.run_supernode(lambda rejection: False, lambda: None)
    assert read == [{}]
    assert "get_fused_config_from_fab" in start_client_internal._pull_and_store_message.__code__.co_names


def test_run_superlink_puts_middleware_first(monkeypatch):
    middleware, inner, seen = Middleware(Starlette), Middleware(Starlette), []
    monkeypatch.setattr(extensions, "get_middleware", extensions.get_middleware)
    monkeypatch.setattr(link_cli, "flower_superlink", lambda: seen.extend(extensions.get_middleware()))
    for name in ("push_messages", "pull_messages"):
        monkeypatch.setattr(runtime_handlers, name, getattr(runtime_handlers, name))
    monkeypatch.setattr(fleet_handlers, "push_messages", fleet_handlers.push_messages)
    for name in ("preregister", "put"):
        monkeypatch.setattr(SqlObjectStore, name, getattr(SqlObjectStore, name))
    plain = (runtime_handlers.pull_messages, SqlObjectStore.put, fleet_handlers.push_messages)
    flower.run_superlink(middleware, inner)
    assert seen[0] is middleware
    assert seen[1] is inner
    patched = (runtime_handlers.pull_messages, SqlObjectStore.put, fleet_handlers.push_messages)
    assert all(one is not other for one, other in zip(plain, patched, strict=True))


def test_flower_uses_patched_private_names():
    assert {"install_from_fab", "get_load_client_app_fn"} <= {*node.run_clientapp.__code__.co_names}
    assert superlink._RUNTIME_HANDLERS is runtime_handlers
    assert superlink._get_middleware.__code__.co_names[:2] == ("extensions", "get_middleware")


def test_is_simulated_is_true_for_flower_simulation_only():
    assert flower.is_simulated(object.__new__(InMemoryGrid))
    assert not flower.is_simulated(InProcessGrid(lambda message, context: message, {}))


def test_set_message_id_is_named_by_reply():
    flower.identify_server(7)
    message = Message(RecordDict(), dst_node_id=3, message_type="train")
    assert message.metadata.run_id == 7
    flower.set_message_id(message, "12")
    assert Message(RecordDict(), reply_to=message).metadata.reply_to_message_id == "12"


def test_flower_run_states_and_partition_key_have_known_values():
    assert (Status.FINISHED, SubStatus.COMPLETED) == ("finished", "completed")
    assert PARTITION_ID_KEY == "partition-id"


def push(sender: int, pusher: int) -> PushMessagesRequest:
    message = ProtoMessage(metadata=Metadata(src_node_id=sender, message_id="a" * 64, created_at=1.8e9, ttl=60.0))
    return PushMessagesRequest(
        node=Node(node_id=pusher),
        messages_list=[message],
        message_object_trees=[ObjectTree(object_id="a" * 64)],
        clientapp_runtime_list=[1.5],
    )


def test_superlink_takes_messages_of_the_node_that_pushes_them_only(monkeypatch):
    """Else one hospital's node could answer for another whose request it knows."""
    pushed = []
    monkeypatch.setattr(fleet_handlers, "push_messages", lambda request, state: pushed.append(request))
    flower._reject_messages_of_others()
    fleet_handlers.push_messages(push(5, 5), None)
    with pytest.raises(HTTPException) as rejected:
        fleet_handlers.push_messages(push(6, 5), None)
    assert rejected.value.status_code == 403
    assert len(pushed) == 1
    assert "fleet_handlers" in fleet_router.fleet_push_messages.__code__.co_names, "the router looks it up by module"


def with_times(**times: float) -> PushMessagesRequest:
    request = push(5, 5)
    for name, value in times.items():
        setattr(request.messages_list[0].metadata, name, value)
    return request


def with_runtime(seconds: float) -> PushMessagesRequest:
    request = push(5, 5)
    request.clientapp_runtime_list[0] = seconds
    return request


def with_trees(*trees: ObjectTree) -> PushMessagesRequest:
    request = push(5, 5)
    del request.message_object_trees[:]
    request.message_object_trees.extend(trees)
    return request


@pytest.mark.parametrize(
    "request_",
    [
        with_times(ttl=math.nan),
        with_times(ttl=math.inf),
        with_times(ttl=-1e300),
        with_times(created_at=math.nan),
        with_times(created_at=-math.inf),
        with_times(created_at=1e300),
        with_runtime(math.nan),
        with_runtime(math.inf),
        with_trees(ObjectTree(object_id="b" * 64, children=[ObjectTree(object_id="a" * 64)])),
        with_trees(),
        with_trees(ObjectTree(object_id="a" * 64, children=[ObjectTree(object_id="b" * 64)] * 20_000)),
        with_trees(ObjectTree(object_id="a" * 64), ObjectTree(object_id="b" * 64)),
        PushMessagesRequest(node=Node(node_id=5)),
    ],
)
def test_superlink_takes_no_message_that_it_could_not_deliver(request_, monkeypatch):
    pushed = []
    monkeypatch.setattr(fleet_handlers, "push_messages", lambda request, state: pushed.append(request))
    flower._reject_messages_of_others()
    with pytest.raises(HTTPException) as rejected:
        fleet_handlers.push_messages(request_, None)
    assert (rejected.value.status_code, pushed) == (400, [])


def test_superlink_passes_a_late_reply_on_to_flower(monkeypatch):
    pushed = []
    monkeypatch.setattr(fleet_handlers, "push_messages", lambda request, state: pushed.append(request))
    flower._reject_messages_of_others()
    late = with_times(ttl=-1.0)
    fleet_handlers.push_messages(late, None)
    assert pushed == [late]


def test_run_supernode_sends_a_rejected_request_again_signed_anew(monkeypatch):
    statuses, seen = [412, 412, 200], []
    private, public = generate_key_pairs()

    def send(context):
        seen.append(context.request.headers["flwr-signature"])
        return httpx.Response(statuses.pop(0), headers={"Date": "now"})

    def supernode() -> None:
        request = httpx.Request("POST", "https://hub/v1/fleet/activate-node")
        context = ProtobufRequestContext("/flwr.proto.Fleet/ActivateNode", PushMessagesRequest(), request)
        response = node_connection.NodeAuthHttpInterceptor(private, public).intercept(context, send)
        assert response.status_code == 200

    monkeypatch.setattr(node_connection, "NodeAuthHttpInterceptor", node_connection.NodeAuthHttpInterceptor)
    monkeypatch.setattr(node_cli, "flower_supernode", supernode)
    rejections, accepted = [], []
    flower.run_supernode(lambda rejection: not rejections.append(rejection), lambda: accepted.append(True))
    assert rejections == [flower.Rejection(activating=True, status=412, date="now")] * 2
    assert accepted == [True]
    assert len(set(seen)) == 3
    assert "NodeAuthHttpInterceptor" in node_connection.http_request_response.__wrapped__.__code__.co_names

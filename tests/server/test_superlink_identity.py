"""Registration, revocation and forged senders at Flower's own SuperLink, in this process and without a network."""

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.common.constant import HEARTBEAT_DEFAULT_INTERVAL
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
    PushMessagesResponse,
)
from flwr.proto.message_pb2 import Message, Metadata, ObjectTree
from flwr.proto.node_pb2 import Node
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
from flwr.supercore.protobuf import client as protobuf_client
from flwr.superlink.main import create_app
from flwr.superlink.servicer.fleet import fleet_handlers
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor
from starlette.testclient import TestClient

from ganseg_dist.compat import flower
from ganseg_dist.compat.flower_control import nodes_of
from ganseg_dist.errors import ConfigError, FederationError
from ganseg_dist.federation.certificates import make_certificates
from ganseg_dist.federation.public_key import PublicKey
from server.control import CONNECTION
from server.registration import register, revoke
from server.site_registry import FILE, Registry

ID = "a" * 64


class Hospital:
    """A node's requests, signed with its key."""

    def __init__(self, folder: Path, name: str) -> None:
        key = load_ssh_private_key((folder / f"{name}.key").read_bytes(), None)
        self.key = PublicKey.read(folder / f"{name}.pub")
        signed = NodeAuthHttpInterceptor(key, key.public_key())
        version = RuntimeVersionHttpInterceptor(component_name="SuperNode")
        self.client = FleetHttpClient.from_server_address("hub:9092", False, None, [version, signed])

    def connect(self) -> int:
        request = ActivateNodeRequest(public_key=self.key.pem, heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL)
        return int(self.client.ActivateNode(request).node_id)

    def pull(self, node: int) -> None:
        self.client.PullMessages(PullMessagesRequest(node=Node(node_id=node)))

    def push(self, node: int, sender: int) -> None:
        times = {"created_at": 1.8e9, "ttl": 60.0}
        message = Message(metadata=Metadata(run_id=1, src_node_id=sender, message_type="train", message_id=ID, **times))
        self.client.PushMessages(
            PushMessagesRequest(
                node=Node(node_id=node),
                messages_list=[message],
                message_object_trees=[ObjectTree(object_id=ID)],
                clientapp_runtime_list=[0.0],
            )
        )


@pytest.fixture
def state(tmp_path, monkeypatch) -> Iterator[Path]:
    """A server's folder with the keys of three hospitals, and its SuperLink behind every HTTP client."""
    (tmp_path / "flower").mkdir()
    (tmp_path / "flower" / "config.toml").write_text('[superlink.federation]\naddress = "hub:9092"\n')
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "flower"))
    monkeypatch.setattr("flwr.superlink.main.get_ee_linkstate_db", lambda: str(tmp_path / "superlink.db"))
    make_certificates(tmp_path, [], ["north", "south", "west"], days=1)
    superlink = create_app()
    superlink.state.enable_supernode_auth = True
    with TestClient(superlink, base_url="https://hub:9092") as client:
        monkeypatch.setattr(client, "close", lambda: None)
        monkeypatch.setattr(protobuf_client.httpx, "Client", lambda **_: client)
        yield tmp_path


@pytest.fixture
def stored(monkeypatch) -> list[int]:
    """Senders of the messages that passed every check at the SuperLink, in place of storing them."""
    senders: list[int] = []

    def store(request: PushMessagesRequest, state: object) -> PushMessagesResponse:
        senders.append(request.messages_list[0].metadata.src_node_id)
        return PushMessagesResponse()

    monkeypatch.setattr(fleet_handlers, "push_messages", store)
    flower._reject_messages_of_others()
    return senders


def status_of(request: Callable[..., object], *args: int) -> int:
    with pytest.raises(httpx.HTTPStatusError) as raised:
        request(*args)
    return raised.value.response.status_code


def test_registered_key_connects_as_the_node_that_the_registry_names(state):
    site = register(state, state / "north.pub", "Klinik Nord")
    node = Hospital(state, "north").connect()
    assert Registry(state / FILE).of_node(node) == site
    (listed,) = nodes_of(CONNECTION)
    assert (listed.number, listed.key, listed.status) == (node, PublicKey.read(state / "north.pub").pem, "online")


def test_unregistered_key_is_rejected(state):
    assert status_of(Hospital(state, "west").connect) == 412


def test_revoked_key_is_rejected_while_connected_and_for_good(state):
    register(state, state / "north.pub", "north")
    north = Hospital(state, "north")
    node = north.connect()
    north.pull(node)
    revoke(state, "north")
    assert status_of(north.pull, node) == 401
    assert status_of(north.connect) == 412
    with pytest.raises(FederationError, match="is revoked"):
        Registry(state / FILE).of_node(node)
    (state / FILE).unlink()
    with pytest.raises(ConfigError, match="the server has unregistered this key"):
        register(state, state / "north.pub", "north")


def test_node_cannot_act_for_another_node(state, stored):
    for name in ("north", "south"):
        register(state, state / f"{name}.pub", name)
    north, south = Hospital(state, "north"), Hospital(state, "south")
    of_north, of_south = north.connect(), south.connect()
    assert status_of(south.pull, of_north) == 401
    assert status_of(south.push, of_north, of_north) == 401
    assert status_of(south.push, of_south, of_north) == 403, "Flower itself lets this one pass"
    assert stored == []
    south.push(of_south, of_south)
    assert stored == [of_south]

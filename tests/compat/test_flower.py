"""The private names of Flower that compat/flower.py touches; tests/deploy tests what they do with real processes."""

import pytest
from flwr.app import Message, RecordDict
from flwr.common.constant import PARTITION_ID_KEY, Status, SubStatus
from flwr.superlink import cli as link_cli
from flwr.superlink import extensions
from flwr.superlink import main as superlink
from flwr.superlink.grid import InMemoryGrid
from flwr.supernode import cli as node_cli
from flwr.supernode.runtime import run_clientapp as node
from starlette.applications import Starlette
from starlette.middleware import Middleware

from ganseg_dist.compat import flower
from server.grids import InProcessGrid


def test_run_clientapp_checks_bundle_before_unpacking(monkeypatch):
    done = []

    def task() -> None:
        node.install_from_fab(b"good", skip_prompt=True)
        node.install_from_fab(b"bad", skip_prompt=True)

    def check(bundle: bytes) -> None:
        if bundle == b"bad":
            raise ValueError("bad bundle")

    monkeypatch.setattr(node, "install_from_fab", lambda bundle, **options: done.append((bundle, options)))
    monkeypatch.setattr(node_cli, "flwr_clientapp", task)
    with pytest.raises(ValueError, match="bad bundle"):
        flower.run_clientapp(check)
    assert done == [(b"good", {"skip_prompt": True})]


def test_run_superlink_puts_middleware_first(monkeypatch):
    middleware, seen = Middleware(Starlette), []
    monkeypatch.setattr(extensions, "get_middleware", extensions.get_middleware)
    monkeypatch.setattr(link_cli, "flower_superlink", lambda: seen.extend(extensions.get_middleware()))
    flower.run_superlink(middleware)
    assert seen[0] is middleware


def test_flower_uses_patched_private_names():
    assert "install_from_fab" in node.run_clientapp.__code__.co_names
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

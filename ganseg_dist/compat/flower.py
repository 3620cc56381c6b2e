"""Private parts of Flower, written against Flower 1.42.

Only `flwr.app`, `flwr.clientapp`, `flwr.serverapp` and `flwr.simulation` are public. Each function imports what it
needs: a server, a hospital's node and a command need different parts. `flower_control` has what a command asks of a
SuperLink, `flower_log` what Flower logs, `flower_store` what a SuperLink stores, `flower_replies` how a server takes
replies from it.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from flwr.app import Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from starlette.middleware import Middleware

LATEST = 1e11
"""Seconds: no time of a message is later, and none is longer. What a late reply has left is negative."""
LARGEST_TREE = 20_000
"""Objects of a message: two for each array, and one for each 5 MiB of it."""


def run_superlink(*middleware: Middleware) -> None:
    """Run `flower-superlink` with this ASGI middleware outermost, the first one first; Flower takes none itself."""
    from flwr.superlink import extensions
    from flwr.superlink.cli import flower_superlink

    from ganseg_dist.compat.flower_store import protect_store

    others = extensions.get_middleware()
    extensions.get_middleware = lambda: (*middleware, *others)
    _reject_messages_of_others()
    protect_store()
    flower_superlink()


def _reject_messages_of_others() -> None:
    """Let a node push its own messages only: Flower compares the key with the request, not with the messages in it.

    Nor does Flower compare a message with the tree of its objects, or its times with what a database stores: NaN is
    read back as nothing, and whoever polls for the message then gets an error.
    """
    from flwr.superlink.servicer.fleet import fleet_handlers
    from starlette.exceptions import HTTPException

    names = vars(fleet_handlers)
    push = names["push_messages"]

    def push_own(request: Any, state: Any) -> Any:
        if any(message.metadata.src_node_id != request.node.node_id for message in request.messages_list):
            raise HTTPException(403, "a node sends its own messages alone")
        if not _is_storable(request):
            raise HTTPException(400, "a node sends one message, with the tree of its objects and finite times")
        return push(request, state)

    names["push_messages"] = push_own


def _is_storable(request: Any) -> bool:
    """Whether a node's request holds one message and the tree below it, with times that a database can store."""
    from flwr.supercore.inflatable.inflatable_object import iterate_object_tree

    if len(request.messages_list) != 1 or len(request.message_object_trees) != 1:
        return False
    (tree,), metadata = request.message_object_trees, request.messages_list[0].metadata
    times = (metadata.created_at, metadata.ttl, *request.clientapp_runtime_list)
    return (
        tree.object_id == metadata.message_id
        and sum(1 for _ in iterate_object_tree(tree)) <= LARGEST_TREE
        and all(abs(time) <= LATEST for time in times)  # NaN is not
    )


def signing_key(headers: Mapping[str, str]) -> bytes | None:
    """The public key, in PEM, that signed a node's request, by its headers alone; None without a valid signature.

    What is signed is the time, which Flower compares with its own, and the node that the request names, once it has
    read all of it.
    """
    from flwr.common.constant import TIMESTAMP_HEADER
    from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
    from flwr.supercore.primitives.asymmetric import bytes_to_public_key, verify_signature

    try:
        key, signature = (
            base64.b64decode(headers[name], validate=True)
            for name in (FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER)
        )
        signed = verify_signature(bytes_to_public_key(key), headers[TIMESTAMP_HEADER].encode("ascii"), signature)
    except (KeyError, ValueError, TypeError, AttributeError, UnsupportedAlgorithm):  # of another kind of key, too
        return None
    return key if signed else None


@dataclass(frozen=True, slots=True)
class Rejection:
    """The SuperLink's answer to a request of a node that it rejects."""

    activating: bool
    """Whether the node asked to be connected."""
    status: int
    """Of HTTP: 401 for a signature, a clock or a key that has no node any more."""
    date: str | None
    """The answer's `Date`, by the SuperLink's clock."""


def run_supernode(try_again: Callable[[Rejection], bool], accepted: Callable[[], None]) -> None:
    """Run `flower-supernode`; returns only when it fails.

    Of each rejected request, `try_again` decides whether it is sent again, signed anew. `accepted` is called when the
    SuperLink has connected the node.
    """
    from flwr.supernode import fleet_http_connection as module
    from flwr.supernode import start_client_internal
    from flwr.supernode.cli import flower_supernode

    # The app needs no settings of the run's bundle, which Flower would read unchecked, whatever its size.
    vars(start_client_internal)["get_fused_config_from_fab"] = lambda bundle, run: {}
    names = vars(module)
    signer: type[Any] = names["NodeAuthHttpInterceptor"]

    class Observed(signer):
        """Signs a node's requests."""

        def intercept(self, context: Any, call_next: Callable[[Any], Any]) -> Any:
            unsigned = context.request.headers.copy()
            while True:
                response = super().intercept(context, call_next)
                activating = context.rpc_method.endswith("/ActivateNode")
                if not response.is_error:
                    if activating:
                        accepted()
                    return response
                if not try_again(Rejection(activating, response.status_code, response.headers.get("date"))):
                    return response
                context.request.headers = unsigned.copy()

    names["NodeAuthHttpInterceptor"] = Observed
    flower_supernode()


def run_clientapp(app: ClientApp, check_bundle: Callable[[bytes], None]) -> None:
    """Run `flwr-clientapp`, a node's task, with an installed app in place of the one that the run's bundle names.

    Flower would unpack the bundle, compare the files that a list in it names, wherever they lie, and import what it
    finds. Here it is checked and dropped. An exception in the check ends the task before the app is called.
    """
    from flwr.supernode.cli import flwr_clientapp
    from flwr.supernode.runtime import run_clientapp as module

    names = vars(module)
    names["install_from_fab"] = lambda bundle, **options: check_bundle(bundle)
    names["get_load_client_app_fn"] = lambda **options: lambda fab_id, fab_version, fab_hash: app
    flwr_clientapp()


def is_simulated(grid: Grid) -> bool:
    """Whether Flower simulates the nodes: only a simulation's server app and its grid share a process."""
    from flwr.superlink.grid import InMemoryGrid

    return isinstance(grid, InMemoryGrid)


def identify_server(run: int) -> None:
    """Give this process the identity of a run's server, without which Flower makes no messages; a SuperLink sets it."""
    from flwr.supercore.task_identity import TaskIdentity

    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run, 0, 0


def set_message_id(message: Message, message_id: str) -> None:
    """Number a message, as a SuperLink does when one is pushed; a reply then names it."""
    message.metadata.__dict__["_message_id"] = message_id

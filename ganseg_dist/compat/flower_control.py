"""What a command on the server's machine asks of its SuperLink, by private parts of Flower 1.42: runs, logs and nodes.

A connection is named in `config.toml` of `FLWR_HOME`. Each function raises ConnectionError when the SuperLink does not
answer, and RequestRejected when it rejects the request.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flwr.proto.node_pb2 import NodeInfo
    from flwr.supercore.control import ControlHttpClient

UNREGISTERED, ONLINE = "unregistered", "online"
"""Two of a node's states."""


class RequestRejected(Exception):
    """The SuperLink rejects a request; the message is Flower's."""


@dataclass(frozen=True, slots=True)
class FlowerRun:
    """A run in the SuperLink's list."""

    number: int
    """The id that `flwr stop` and `flwr log` take."""
    settings: Mapping[str, Any]
    """Given by `flwr run --run-config`."""
    submitted: str
    """ISO 8601."""
    status: str
    """`pending`, `starting`, `running` or `finished`."""
    sub_status: str
    """`completed`, `failed` or `stopped` for a finished run."""


@dataclass(frozen=True, slots=True)
class FlowerNode:
    """A node in the SuperLink's list, which keeps unregistered ones: their keys cannot be registered again."""

    number: int
    key: bytes
    """Its public key, as PEM."""
    status: str
    """`registered` (never connected), `online`, `offline` or `unregistered`."""
    changed: str | None
    """ISO 8601: when it connected, disconnected or was unregistered last."""


def address_of(connection: str) -> tuple[str, str | None]:
    """HOST:PORT of the SuperLink and the path of the authority's certificate."""
    from flwr.cli.flower_config import read_superlink_connection

    found = read_superlink_connection(connection)
    return str(found.address), found.root_certificates


def runs_of(connection: str) -> list[FlowerRun]:
    """All runs; `flwr list` only prints a table."""
    from flwr.common.serde import run_from_proto
    from flwr.proto.control_pb2 import ListRunsRequest

    with _control(connection) as client:
        listed = client.ListRuns(ListRunsRequest())
    runs = map(run_from_proto, listed.run_dict.values())
    return [
        FlowerRun(run.run_id, run.override_config, run.pending_at, run.status.status, run.status.sub_status)
        for run in runs
    ]


def log_of(connection: str, run: int, after: float = 0.0) -> Iterator[tuple[str, float]]:
    """Parts of a run's log with their times, until the run ends; those after a time where one is given."""
    from flwr.proto.control_pb2 import StreamLogsRequest

    with _control(connection) as client:
        try:
            for part in client.StreamLogs(StreamLogsRequest(run_id=run, after_timestamp=after)):
                yield part.log_output, part.latest_timestamp
        except ValueError as error:  # a part that was cut off
            raise ConnectionError(str(error)) from None


def nodes_of(connection: str) -> list[FlowerNode]:
    """All nodes, the unregistered ones included."""
    from flwr.proto.control_pb2 import ListNodesRequest

    with _control(connection) as client:
        listed = client.ListNodes(ListNodesRequest())
    return [FlowerNode(node.node_id, node.public_key, node.status, _changed(node)) for node in listed.nodes_info]


def _changed(node: NodeInfo) -> str | None:
    connected = node.last_activated_at if node.status == ONLINE else node.last_deactivated_at
    return node.unregistered_at or connected or None


def register_node(connection: str, key: bytes, name: str) -> int:
    """Let nodes with this public key, as PEM, connect; returns the id that they get."""
    from flwr.proto.control_pb2 import RegisterNodeRequest

    with _control(connection) as client:
        return int(client.RegisterNode(request=RegisterNodeRequest(public_key=key, name=name)).node_id)


def unregister_node(connection: str, node: int) -> None:
    """End a node's connection and reject its key for good."""
    from flwr.proto.control_pb2 import UnregisterNodeRequest

    with _control(connection) as client:
        client.UnregisterNode(request=UnregisterNodeRequest(node_id=node))


@contextmanager
def _control(connection: str) -> Iterator[ControlHttpClient]:
    """A client of the SuperLink, with Flower's errors in the block as those of this module."""
    import click
    from flwr.cli.flower_config import read_superlink_connection
    from flwr.cli.utils import (
        SUPERLINK_UNAVAILABLE_MESSAGE,
        flwr_cli_exc_handler,
        init_http_client_from_connection,
    )

    try:
        with redirect_stdout(io.StringIO()):  # it prints which connection it uses
            client = init_http_client_from_connection(read_superlink_connection(connection))
        try:
            with flwr_cli_exc_handler():
                yield client
        finally:
            client.close()
    except click.ClickException as error:
        if error.message == SUPERLINK_UNAVAILABLE_MESSAGE:
            raise ConnectionError(error.message) from None
        raise RequestRejected(error.message) from None

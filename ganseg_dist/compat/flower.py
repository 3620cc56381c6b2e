"""Private parts of Flower, written against Flower 1.42.

Only `flwr.app`, `flwr.clientapp`, `flwr.serverapp` and `flwr.simulation` are public. Each function imports what it
needs: a server, a hospital's node and a command need different parts. `flower_control` has what a command asks of a
SuperLink, `flower_log` what Flower logs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from flwr.app import Message, MessageType, RecordDict
from flwr.serverapp import Grid
from starlette.middleware import Middleware


def run_superlink(middleware: Middleware) -> None:
    """Run `flower-superlink` with this ASGI middleware outermost; Flower takes none from outside."""
    from flwr.superlink import extensions
    from flwr.superlink.cli import flower_superlink

    others = extensions.get_middleware()
    extensions.get_middleware = lambda: (middleware, *others)
    flower_superlink()


def run_clientapp(check_bundle: Callable[[bytes], None]) -> None:
    """Run `flwr-clientapp`, a node's task, with a check of each bundle before it is unpacked, which Flower lacks.

    An exception in the check ends the task before any of the bundle's code runs.
    """
    from flwr.supernode.cli import flwr_clientapp
    from flwr.supernode.runtime import run_clientapp as module

    names = vars(module)
    unpack = names["install_from_fab"]

    def unpack_checked(bundle: bytes, **options: Any) -> Path:
        check_bundle(bundle)
        unpacked: Path = unpack(bundle, **options)
        return unpacked

    names["install_from_fab"] = unpack_checked
    flwr_clientapp()


def pull_reply(grid: Grid, message_id: str) -> Message | None:
    """The reply to a message; None before it has arrived.

    Over a network, Flower builds a reply of the objects that its node sent, and raises whatever goes wrong there; the
    other replies of the same pull are then lost. So each is pulled alone, and one that cannot be built has no content.
    """
    import httpx
    from flwr.superlink.grid import HttpGrid

    try:
        return next(iter(grid.pull_messages([message_id])), None)
    except (OSError, httpx.HTTPError):  # of the connection
        raise
    except Exception:
        if not isinstance(grid, HttpGrid):
            raise
        return Message(RecordDict(), dst_node_id=0, message_type=MessageType.TRAIN)


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

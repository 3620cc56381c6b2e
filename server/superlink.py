"""Flower's SuperLink with only the nodes' endpoints open to other machines: `python -m server.superlink`.

Flower 1.42 serves everything on one port and authenticates only nodes. Whoever reaches the port may register a node's
key, start a run, which is code that nodes execute, and take the server's own tasks (`/v1/control`, `/v1/runtime`).
Here these endpoints answer only the server's own machine. Takes the options of `flower-superlink`.
"""

from __future__ import annotations

import ipaddress

from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from ganseg_dist.compat.flower import run_superlink

OPEN_TO_ALL = "/v1/fleet/"
"""Path of the nodes' endpoints, where Flower verifies their signatures."""


class LoopbackOnly:
    """Rejects requests from other machines, except at the nodes' endpoints."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection: answer with 403, or pass it on."""
        if scope["type"] == "lifespan" or scope["path"].startswith(OPEN_TO_ALL) or _is_own_machine(scope):
            await self.app(scope, receive, send)
        else:
            await PlainTextResponse("This answers the server's own machine alone.", 403)(scope, receive, send)


def _is_own_machine(scope: Scope) -> bool:
    """Whether the connection comes over the loopback interface. A proxy on this machine would hide its origin."""
    client = scope.get("client")
    if client is None:
        return False
    address = ipaddress.ip_address(client[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def main() -> None:
    """Start the SuperLink."""
    run_superlink(Middleware(LoopbackOnly))


if __name__ == "__main__":
    main()

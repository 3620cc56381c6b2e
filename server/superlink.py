"""Flower's SuperLink with only the nodes' endpoints open to other machines: `python -m server.superlink`.

Flower 1.42 serves everything on one port and authenticates only nodes. Whoever reaches the port may register a node's
key, start a run, which is code that nodes execute, and take the server's own tasks (`/v1/control`, `/v1/runtime`).
Here these endpoints answer only the server's own machine, and the nodes' ones read only so much of a request
(`bounded_requests`). Takes the options of `flower-superlink`, and checks the
certificate and the port before it starts.
"""

from __future__ import annotations

import argparse
import datetime
import errno
import socket
import sys
from pathlib import Path

from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from ganseg_dist.compat.flower import run_superlink
from ganseg_dist.compat.flower_log import explain_flower_log
from ganseg_dist.errors import ConfigError, GansegError, exit_with
from ganseg_dist.federation.certificates import check_server_certificate
from ganseg_dist.plural import counted
from ganseg_dist.printable import printable
from server.bounded_requests import BoundedRequests, in_registry
from server.own_machine import is_own_machine
from server.site_registry import Registry

EXPIRES_SOON = datetime.timedelta(days=30)
OPEN_TO_ALL = "/v1/fleet/"
"""Path of the nodes' endpoints, where Flower verifies their signatures."""


class LoopbackOnly:
    """Rejects requests from other machines, except at the nodes' endpoints."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection: answer with 403, or pass it on."""
        if scope["type"] == "lifespan" or scope["path"].startswith(OPEN_TO_ALL) or is_own_machine(scope):
            await self.app(scope, receive, send)
        else:
            await PlainTextResponse("This answers the server's own machine alone.", 403)(scope, receive, send)


def check(options: argparse.Namespace) -> str | None:
    """A warning of a certificate that expires soon; None without one.

    Raises ConfigError for a certificate that no node would accept, and for a port that cannot be taken.
    """
    remaining = check_server_certificate(options.certificate, options.key)
    try:
        with socket.create_server((options.host, options.port)):
            pass
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        problem = "is taken on this machine" if taken else f"cannot be opened ({error.strerror})"
        raise ConfigError(
            f"port {options.port}: {problem}; is this server running already? Otherwise give another PORT"
        ) from None
    if remaining < EXPIRES_SOON:
        return f"{options.certificate}: expires in {counted(remaining.days, 'day')}; make another before"
    return None


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ssl-certfile", dest="certificate", type=Path, required=True)
    parser.add_argument("--ssl-keyfile", dest="key", type=Path, required=True)
    return parser.parse_known_args()[0]


def main() -> None:
    """Start the SuperLink."""
    try:
        warning = check(_options())
        registry = Registry.from_environment()
    except GansegError as error:
        exit_with(error)
    if warning is not None:
        print(printable(f"warning: {warning}"), file=sys.stderr)
    explain_flower_log()
    run_superlink(Middleware(LoopbackOnly), Middleware(BoundedRequests, is_registered=in_registry(registry)))


if __name__ == "__main__":
    main()

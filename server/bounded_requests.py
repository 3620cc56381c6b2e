"""Bounds what another machine can make the SuperLink read into memory, which it does before it looks at the sender."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from ganseg_dist.compat.flower import signing_key
from ganseg_dist.errors import RunError
from ganseg_dist.federation.public_key import PublicKey
from server.own_machine import is_own_machine
from server.site_registry import Registry

LARGEST_OF_ANYBODY = 2**16
"""Bytes of a request's body. Those by which a node connects, asks and confirms have some hundreds."""
LARGEST_OF_SITE = 2**23
"""Of one that a registered key signed: Flower uploads arrays in chunks of 5 MiB, and the tree of a message at once."""


class BoundedRequests:
    """Rejects requests of other machines by what their headers state, before anything of the body is read."""

    def __init__(self, app: ASGIApp, is_registered: Callable[[bytes], bool]) -> None:
        """`is_registered` tells whether a site has a public key, in PEM."""
        self.app = app
        self.is_registered = is_registered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection: answer with 411 or 413, or pass it on."""
        status = 0 if scope["type"] != "http" or is_own_machine(scope) else self._rejected(Headers(scope=scope))
        if status:
            await PlainTextResponse("The request is too large, or does not state its length.", status)(
                scope, receive, send
            )
        else:
            await self.app(scope, receive, send)

    def _rejected(self, headers: Mapping[str, str]) -> int:
        """The status of a rejection, else 0. Without a length and an encoding HTTP knows no body."""
        length = headers.get("content-length", "0")
        if "transfer-encoding" in headers or not (length.isascii() and length.isdecimal()):
            return 411
        if int(length) <= LARGEST_OF_ANYBODY:
            return 0
        key = signing_key(headers) if int(length) <= LARGEST_OF_SITE else None
        return 0 if key is not None and self.is_registered(key) else 413


def in_registry(registry: Registry) -> Callable[[bytes], bool]:
    """Whether a key is one of the registry's that are not revoked; no key is while the registry cannot be read."""

    def is_registered(pem: bytes) -> bool:
        try:
            fingerprint = PublicKey.from_pem(pem).fingerprint
            return any(site.key == fingerprint and site.revoked is None for site in registry.sites())
        except (ValueError, RunError):
            return False

    return is_registered

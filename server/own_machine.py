"""Whether a request comes from the server's own machine."""

from __future__ import annotations

import ipaddress

from starlette.types import Scope


def is_own_machine(scope: Scope) -> bool:
    """Whether the connection comes over the loopback interface. A proxy on this machine would hide its origin."""
    client = scope.get("client")
    if client is None:
        return False
    address = ipaddress.ip_address(client[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback

"""The server as commands on its own machine reach it: errors of Flower's become one line with a remedy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ganseg_dist.compat.flower_control import RequestRejected, address_of
from ganseg_dist.errors import FederationError, RunError, one_line
from ganseg_dist.federation.tls import check_connection

CONNECTION = "federation"
"""Name of the SuperLink connection that server.sh defines in `FLWR_HOME`."""


@contextmanager
def control_errors() -> Iterator[None]:
    """Raises RunError where the SuperLink does not answer a request in the block, or rejects it."""
    try:
        yield
    except ConnectionError:
        raise RunError(f"the server does not answer: {_reason()}") from None
    except RequestRejected as error:
        raise RunError(f"the server rejects the request ({one_line(error)}); see its output") from None


def _reason() -> str:
    address, authority = address_of(CONNECTION)
    try:
        if authority is not None:
            check_connection(address, Path(authority))
    except FederationError as error:
        return str(error)
    return f"{address} accepts connections and gives no answer; see server.sh's output, and start it again"

"""Why a federation's server cannot be reached over TLS, as one line with its remedy."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

from ganseg_dist.errors import FederationError

SECONDS = 10.0
"""For a connection and for each step of TLS."""
EXPIRED, NOT_YET_VALID, HOST_MISMATCH, ADDRESS_MISMATCH = 10, 9, 62, 64
"""OpenSSL's codes of a certificate's problem; other ones mean that the authority did not issue it."""


class Unreachable(FederationError):
    """The server does not answer now, and may later."""


def check_connection(address: str, authority: Path) -> None:
    """Connect as Flower does, over TLS with the authority's certificate, and disconnect.

    Args:
        address: HOST:PORT of the server.
        authority: path of ca.crt.

    Raises Unreachable where nothing answers, and FederationError for a wrong address or certificate.
    """
    host, port = _split(address)
    try:
        context = ssl.create_default_context(cafile=str(authority))
    except (OSError, ssl.SSLError):
        raise FederationError(f"{authority}: is no authority's certificate; get ca.crt from the operator") from None
    try:
        with (
            socket.create_connection((host, port), timeout=SECONDS) as connection,
            context.wrap_socket(connection, server_hostname=host),
        ):
            pass
    except ssl.SSLCertVerificationError as error:
        raise FederationError(f"{address}: {_certificate_problem(error, host, authority)}") from None
    except ssl.SSLError:
        raise FederationError(
            f"{address}: does not speak TLS; give the address and port of server.sh, and no proxy in between"
        ) from None
    except socket.gaierror:
        raise Unreachable(f"{address}: no machine has the name {host}; correct it, or this machine's DNS") from None
    except ConnectionRefusedError:
        raise Unreachable(f"{address}: nothing listens there; is server.sh running, with this port?") from None
    except TimeoutError:
        raise Unreachable(
            f"{address}: does not answer in {SECONDS:.0f} s; is the machine up, and the port open from here?"
        ) from None
    except OSError as error:
        raise Unreachable(
            f"{address}: cannot be reached ({error.strerror or error}); is this machine's network up, and the port "
            "open from here?"
        ) from None


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or "/" in address or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise FederationError(f"{address}: is no HOST:PORT; give the server's, such as hub.example.org:9092")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _certificate_problem(error: ssl.SSLCertVerificationError, host: str, authority: Path) -> str:
    if error.verify_code == EXPIRED:
        return "its certificate has expired; the operator makes a new one with ganseg certificates"
    if error.verify_code == NOT_YET_VALID:
        return "its certificate is not valid yet; set this machine's clock, or the server's when it was made"
    if error.verify_code in (HOST_MISMATCH, ADDRESS_MISMATCH):
        return (
            f"its certificate is not for {host}; give a name that it is for, or the operator makes another with "
            f"--host {host}"
        )
    return f"its certificate is not of the authority in {authority}; get the operator's ca.crt over a safe channel"

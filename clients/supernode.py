"""Flower's SuperNode for a hospital, which prints why it is not connected: `python -m clients.supernode`.

Takes the options of `flower-supernode`. It checks the key and the server's certificate before it starts; Flower itself
would retry for ever, or end with a code.
"""

from __future__ import annotations

import argparse
import datetime
import logging
import os
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path

import psutil

from ganseg_dist.compat.flower import Rejection, run_supernode
from ganseg_dist.compat.flower_log import explain_flower_log
from ganseg_dist.errors import GansegError, exit_with
from ganseg_dist.federation.public_key import PublicKey
from ganseg_dist.federation.tls import Unreachable, check_connection
from ganseg_dist.printable import printable

UNAUTHORISED = 401
ACTIVATION_SECONDS, RETRY_SECONDS = 90.0, 10.0
"""A node that was killed counts as connected for a minute, in which Flower accepts no other with its key."""
ENDING_SECONDS = 2.0
"""That the node waits for its children to end."""
CLOCK_TOLERANCE = 4.0
"""Seconds by which clocks may differ: one less than Flower's."""


@dataclass(slots=True)
class Connection:
    """What a node knows of its connection to the server."""

    server: str
    fingerprint: str
    """Of the node's key."""
    problem: str | None = None
    """Why the server rejected the last request; None where it accepts the node."""
    activation_ends: float = field(default_factory=lambda: time.monotonic() + ACTIVATION_SECONDS)

    def accepted(self) -> None:
        """The server has connected the node."""
        self.problem = None

    def try_again(self, rejection: Rejection) -> bool:
        """Whether to repeat a rejected request; prints why the server rejects the node at its first attempt."""
        behind = _seconds_behind(rejection.date)
        if rejection.status == UNAUTHORISED and abs(behind) > CLOCK_TOLERANCE:
            order = "behind" if behind > 0 else "ahead of"
            self.problem = (
                f"{self.server}: this machine's clock is {abs(behind):.0f} s {order} the server's; set both (NTP), and "
                "start the node again"
            )
            return False
        if not rejection.activating:
            if rejection.status == UNAUTHORISED:
                self.problem = (
                    f"{self.server}: the server no longer accepts this node's key {self.fingerprint}; the operator "
                    "revoked it, or lost the server's database: ask there"
                )
            return False
        first = self.problem is None
        self.problem = (
            f"{self.server}: the server does not accept this node's key {self.fingerprint}; send NODE.pub to the "
            "operator, who registers it, and start the node again (a revoked key needs a new pair, and a key that "
            "another node is connected with cannot connect)"
        )
        remaining = self.activation_ends - time.monotonic()
        if remaining <= 0:
            return False
        if first:
            show(
                f"warning: {self.server}: the server does not accept this node's key {self.fingerprint} yet: it is not "
                f"registered, or a node with it was killed less than a minute ago; trying for {remaining:.0f} s"
            )
        time.sleep(min(RETRY_SECONDS, remaining))
        return True


def _seconds_behind(date: str | None) -> float:
    """How far this machine's clock is behind an answer's `Date`; negative if it is ahead, 0 where that is not known."""
    with suppress(TypeError, ValueError):
        return (parsedate_to_datetime(str(date)) - datetime.datetime.now(datetime.UTC)).total_seconds()
    return 0.0


def show(text: str) -> None:
    """Print a line in the node's output."""
    print(printable(text), file=sys.stderr, flush=True)


def check(options: argparse.Namespace) -> Connection:
    """Check the node's key and the server's certificate; a server that does not answer is a warning.

    Raises ConfigError for a wrong key file, FederationError for a wrong address or certificate.
    """
    key = PublicKey.of_secret(options.key)
    show(f"this node's key: {key.fingerprint}")
    try:
        check_connection(options.superlink, options.authority)
    except Unreachable as error:
        show(f"warning: {error} The node keeps trying.")
    return Connection(options.superlink, key.fingerprint)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--superlink", required=True)
    parser.add_argument("--root-certificates", dest="authority", type=Path, required=True)
    parser.add_argument("--auth-supernode-private-key", dest="key", type=Path, required=True)
    return parser.parse_known_args()[0]


def _end_children() -> None:
    """End Flower's SuperExec, which this process started, and which would look for it in vain."""
    children = psutil.Process().children(recursive=True)
    for process in children:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(children, timeout=ENDING_SECONDS)
    for process in alive:  # one that trains may take longer; it resumes from its last checkpoint
        with suppress(psutil.NoSuchProcess):
            process.kill()


def main() -> None:
    """Run the node until it is stopped. Exits with 1, after a line with the reason, when the server rejects it."""
    try:
        connection = check(_options())
    except GansegError as error:
        exit_with(error)
    explain_flower_log(is_explained=lambda: connection.problem is not None)
    try:
        run_supernode(connection.try_again, connection.accepted)
        if connection.problem is None:
            connection.problem = "the node ended by an error that the lines above name; start it again"
    finally:
        _end_children()
        if connection.problem is not None:
            show(f"error: {connection.problem}")
            sys.exit(1)  # where Flower stops itself, it exits with 0


if __name__ == "__main__":
    try:
        main()
    except SystemExit as ended:
        if not ended.code:
            raise
        # Python would wait for Flower's threads, and Flower ends the process with 0 five seconds after its decision.
        logging.shutdown()
        sys.stdout.flush()
        os._exit(ended.code if isinstance(ended.code, int) else 1)

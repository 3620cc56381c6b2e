"""The sites as the server sees them: available nodes, members, and requests with a deadline."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from flwr.app import Error, Message, RecordDict
from flwr.serverapp import Grid

from ganseg_dist.compat.flower import pull_reply
from ganseg_dist.errors import FederationError
from ganseg_dist.federation.flower import pack_instruction, unpack_reply
from ganseg_dist.federation.protocol import PREFLIGHT, SITE_ERROR_CODES, RoundInstruction, error_text
from ganseg_dist.federation.shared_parameters import Arrays
from ganseg_dist.federation.site_info import SiteInfo, preflight_layout
from ganseg_dist.federation.versions import check_protocol, difference
from ganseg_dist.plural import counted
from ganseg_dist.printable import printable
from server.inbox import read_reply
from server.registry import RegisteredSite, Registry

POLL_SECONDS = 0.2
ASK_AGAIN_SECONDS = 30.0
"""While members are too few: seconds until nodes that rejected are requested again, and between status lines."""
LOGGED_AT = re.compile(r"^\d{4}-\d\d-\d\dT\S+ ")
"""The timestamp at the start of a line of a site's log."""


def ignore_line(text: str) -> None:
    """Ignores a line."""


@dataclass(slots=True)
class Sites:
    """Sends requests to sites through Flower's grid.

    A site that missed a deadline still gets requests, but is not waited for until it has answered one of them.
    """

    grid: Grid
    deadline_seconds: float
    write_line: Callable[[str], None] = ignore_line
    """Receives a line for each request; ignored by default, where a progress bar shows them."""
    folders: Mapping[str, Path] = field(default_factory=dict)
    """In a simulation, every site's folder by name, whose log has the reasons of rejections; empty in a deployment."""
    registry: Registry | None = None
    """Which node has the key of which site; None in a simulation, whose nodes have no keys."""
    members: dict[int, SiteInfo] = field(default_factory=dict)
    """Sites that take part, by node."""
    revoked: dict[int, SiteInfo] = field(default_factory=dict)
    """Sites whose keys were revoked while they took part, by node."""
    rejecting: dict[int, str] = field(default_factory=dict)
    """Reasons of the nodes that rejected."""
    away: set[tuple[str, int]] = field(default_factory=set)
    """Kind of message and node, for nodes that missed its last deadline: a site that cannot train may still score."""
    bytes_out: int = 0
    bytes_in: int = 0
    other_code: set[int] = field(default_factory=set)
    """Nodes of which the server has warned that they run other code."""

    def enrol(self, instruction: RoundInstruction, least: int, warn: Callable[[str], None]) -> None:
        """Ask every available node that is not a member; wait for `least` members, up to the deadline.

        While there are fewer, nodes that rejected are asked again every ASK_AGAIN_SECONDS: a hospital may have
        corrected its data or settings. A simulation does not wait for that. `warn` receives each rejection at once.

        Raises FederationError, with the rejections, when fewer take part by then.
        """
        self._drop_revoked()
        end, due = time.monotonic() + self.deadline_seconds, time.monotonic() + ASK_AGAIN_SECONDS
        waiting: dict[str, int] = {}
        again: set[int] = set()
        while True:
            known = {*self.members, *waiting.values(), *self.rejecting}
            new = [node for node in self.grid.get_node_ids() if node not in known]
            if new:
                self.write_line(f"asking {counted(len(new), 'node')} whether to take part")
            waiting |= self._push(PREFLIGHT, instruction, {}, [*new, *again - set(waiting.values())], end)
            for node, reply in self._receive(waiting):
                self._take_in(node, reply, warn)
            short, again = len(self.members) < least, set()
            if not short and not waiting:
                return
            if time.monotonic() > end or (self.folders and not waiting):
                break
            if short and time.monotonic() >= due:
                due, again = time.monotonic() + ASK_AGAIN_SECONDS, set(self.rejecting)
                self.write_line(f"{self._membership(least)}; waiting {_duration(end - time.monotonic())} more at most")
            time.sleep(POLL_SECONDS)
        if short:
            raise FederationError(f"federation: {self._membership(least)}{self._rejections()}")

    def ask(
        self,
        kind: str,
        instruction: RoundInstruction,
        arrays: Arrays,
        nodes: Sequence[int] | None = None,
        *,
        on_reply: Callable[[int, int], None] = lambda replies, requests: None,
    ) -> Mapping[int, Message]:
        """The replies of these nodes, by default of all members, that arrive before the deadline.

        `on_reply` is called after each one with the numbers of replies and of requests.
        """
        self._drop_revoked()
        recipients = [node for node in (self.members if nodes is None else nodes) if node not in self.revoked]
        if not recipients:
            return {}
        end = time.monotonic() + self.deadline_seconds
        waiting = self._push(kind, instruction, arrays, recipients, end)
        replies: dict[int, Message] = {}
        while waiting:
            for node, reply in self._receive(waiting):
                replies[node] = reply
                on_reply(len(replies), len(recipients))
            present = [node for node in recipients if (kind, node) not in self.away]
            if time.monotonic() > end or (present and all(node in replies for node in present)):
                break
            if waiting:
                time.sleep(POLL_SECONDS)
        self.away |= {(kind, node) for node in recipients}
        self.away -= {(kind, node) for node in replies}
        self._drop_revoked()  # while the server waited
        return {node: reply for node, reply in replies.items() if node not in self.revoked}

    def failure(self, site: str, error: Error) -> str:
        """The reason of a site's error reply, by its code; in a simulation followed by the last line of its log."""
        reason = error_text(error.code)
        line = self.last_log_line(site) if error.code in SITE_ERROR_CODES else None
        return reason if line is None else f"{reason}: {line}"

    def _push(
        self, kind: str, instruction: RoundInstruction, arrays: Arrays, nodes: Sequence[int], end: float
    ) -> dict[str, int]:
        """Send a request to each node, with a deadline on the monotonic clock; returns the node by message id."""
        if not nodes:
            return {}
        content = pack_instruction(instruction, arrays)
        ttl = max(1.0, end - time.monotonic())
        messages = [Message(content, dst_node_id=node, message_type=kind, ttl=ttl) for node in nodes]
        self.bytes_out += len(nodes) * sum(array.nbytes for array in arrays.values())
        # A message that could not be pushed has no id.
        pushed = zip(self.grid.push_messages(messages), nodes, strict=False)
        return {message_id: node for message_id, node in pushed if message_id}

    def _receive(self, waiting: dict[str, int]) -> Iterator[tuple[int, Message]]:
        """The replies since the last call, with their nodes; their messages are removed from `waiting`."""
        # The SuperLink's own reply for a lost node comes from no node, so a reply's node is that of its request.
        for message_id, node in list(waiting.items()):
            reply = pull_reply(self.grid, message_id)
            if reply is not None:
                del waiting[message_id]
                self.bytes_in += _size(reply)
                yield node, reply

    def registered(self, node: int) -> RegisteredSite | None:
        """The site whose key a node has; None without a registry.

        Raises FederationError for a node that is not registered and for a revoked key.
        """
        return None if self.registry is None else self.registry.of_node(node)

    def label(self, node: int) -> str:
        """A node's registered name with its key or, without one, its number."""
        with suppress(FederationError):
            site = self.registered(node)
            if site is not None:
                return site.label
        return f"node {node}"

    def _drop_revoked(self) -> None:
        """Remove the members whose keys are revoked. The SuperLink accepts no more messages of their nodes."""
        for node, info in list(self.members.items()):
            try:
                self.registered(node)
            except FederationError as error:
                self.revoked[node] = self.members.pop(node)
                self.rejecting[node] = str(error)
                self.write_line(f"{info.name} takes part no more: {error}")

    def _take_in(self, node: int, reply: Message, warn: Callable[[str], None]) -> None:
        """Record a reply to the preflight as a new member or as a rejection."""
        try:
            registered = self.registered(node)
            info = read_reply(reply, _site_info)
            if registered is not None and info.name != registered.name:
                raise FederationError(
                    f"it calls itself {info.name}, and its key is registered as {registered.name}; the hospital "
                    "corrects its name, or the server's operator revokes the key and registers another under that name"
                )
            if any(info.name == member.name for member in self.members.values()):
                raise FederationError("another site has its name; change name in its site.json")
        except FederationError as error:
            if self.rejecting.get(node) != str(error):
                warn(f"{self.label(node)}: takes no part: {error}")
            self.rejecting[node] = str(error)
            return
        self.rejecting.pop(node, None)
        self.members = dict(sorted({**self.members, node: info}.items()))  # by node, whichever answers first
        name = info.name if registered is None else registered.label
        self.write_line(f"{name} takes part, with {counted(info.patients, 'patient')}")
        other = difference(info.versions, info.name)
        if other is not None and node not in self.other_code:
            self.other_code.add(node)
            warn(other)

    def _membership(self, least: int) -> str:
        names = ", ".join(member.name for member in self.members.values())
        summary = f"{len(self.members)} of {least} required sites joined"
        return f"{summary} ({names})" if names else summary

    def _rejections(self) -> str:
        """Text: the rejections with their reasons; in a simulation the last log lines of sites that are not members."""
        members = {member.name for member in self.members.values()}
        lines = {site: self.last_log_line(site) for site in self.folders if site not in members}
        reasons = [f"{site}: {line}" for site, line in lines.items() if line is not None]
        return "".join(
            f"; {each}" for each in reasons or (f"{self.label(node)}: {why}" for node, why in self.rejecting.items())
        )

    def last_log_line(self, site: str) -> str | None:
        """The last line of a simulated site's log, without its time; None for a real site and without a log."""
        with suppress(KeyError, OSError, IndexError):
            lines = (self.folders[site] / "site.log").read_text(encoding="utf-8").splitlines()
            return printable(LOGGED_AT.sub("", lines[-1]))
        return None


def _site_info(content: RecordDict) -> SiteInfo:
    # First, as a site of another protocol may send other numbers, and is to be named as such.
    check_protocol(dict(content.metric_records.get("metrics", {})), "the site")
    arrays, counts = unpack_reply(content, preflight_layout())
    return SiteInfo.read(counts, arrays["description"])


def _size(reply: Message) -> int:
    """Bytes of a reply's arrays."""
    if reply.has_error():
        return 0
    return sum(len(array.data) for record in reply.content.array_records.values() for array in record.values())


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{max(seconds, 0):.0f} s"

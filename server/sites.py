"""The sites as the server sees them: available nodes, members, and requests with a deadline."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from flwr.app import Error, Message, RecordDict
from flwr.serverapp import Grid

from ganseg_dist.compat.flower_replies import pull_reply
from ganseg_dist.errors import FederationError
from ganseg_dist.federation.flower import pack_instruction, unpack_reply
from ganseg_dist.federation.protocol import PREFLIGHT, SITE_ERROR_CODES, RoundInstruction, error_text
from ganseg_dist.federation.record import SiteCounts
from ganseg_dist.federation.shared_parameters import Arrays
from ganseg_dist.federation.site_info import SiteInfo, preflight_layout
from ganseg_dist.federation.versions import check_protocol, difference
from ganseg_dist.plural import counted, duration
from ganseg_dist.printable import printable
from server.inbox import read_reply
from server.requests import Answers, OpenRequest, ignore_answers
from server.site_registry import RegisteredSite, Registry

POLL_SECONDS, LONGEST_POLL_SECONDS = 0.2, 2.0
"""Between two looks for replies: at first, and at most."""
POLLED_SHARE = 0.02
"""Of the time since the request, between those two bounds. Each look makes the SuperLink query its database."""
ASK_AGAIN_SECONDS = 30.0
"""While members are too few: seconds until nodes that rejected are requested again, and between status lines."""
GRACE_SECONDS = 30.0
"""Seconds that a start with enough members still waits for nodes that have never answered: sites that are all there
answer at about the same time, and the first of them must not decide who is in the first round."""
LARGEST_ANSWER = 2**24
"""Bytes of a reply's arrays besides weights: a site's description or fingerprint, and the arrays' headers."""
LARGEST_ENCODING = 2
"""Bytes of an encoded update for each byte of the weights: of `topk`, values and their places."""
LOGGED_AT = re.compile(r"^\d{4}-\d\d-\d\dT\S+ ")
"""The timestamp at the start of a line of a site's log."""


def ignore_line(text: str) -> None:
    """Ignores a line."""


def takes_all(info: SiteInfo) -> str | None:
    """Finds nothing that a site lacks."""
    return None


def poll_pause(waited: float, left: float) -> float:
    """Seconds until the server looks for replies again: it has waited so long for them, and so long is left."""
    return min(max(POLL_SECONDS, POLLED_SHARE * waited), LONGEST_POLL_SECONDS, max(POLL_SECONDS, left))


@dataclass(frozen=True, slots=True)
class Invitation:
    """A request to take part; times are on the monotonic clock."""

    node: int
    sent: float
    end: float
    """When Flower drops it."""


@dataclass(slots=True)
class Sites:
    """Sends requests to sites through Flower's grid.

    A site that missed a deadline still gets requests, but is not waited for until it has answered one of them.
    """

    grid: Grid
    deadline_seconds: float
    write_line: Callable[[str], None] = ignore_line
    """Receives a line for each request and each reply; ignored by default, where a progress bar shows them."""
    folders: Mapping[str, Path] = field(default_factory=dict)
    """In a simulation, every site's folder by name, whose log has the reasons of rejections; empty in a deployment."""
    registry: Registry | None = None
    """Which node has the key of which site; None in a simulation, whose nodes have no keys."""
    unsuited: Callable[[SiteInfo], str | None] = takes_all
    """What a site lacks to train by the agreed config: it takes no part then, whenever it joins."""
    members: dict[int, SiteInfo] = field(default_factory=dict)
    """Sites that take part, by node."""
    revoked: dict[int, SiteInfo] = field(default_factory=dict)
    """Sites whose keys were revoked while they took part, by node."""
    rejecting: dict[int, str] = field(default_factory=dict)
    """Reasons of the nodes that rejected."""
    expected: set[int] = field(default_factory=set)
    """Nodes that have taken part before, for which a start waits until the deadline."""
    joining: dict[str, Invitation] = field(default_factory=dict)
    """Open requests to take part, by message id: no round waits for them."""
    joined: list[tuple[int, Message]] = field(default_factory=list)
    """Replies to these that arrived during a round, by node."""
    away: set[tuple[str, int]] = field(default_factory=set)
    """Kind of message and node, for nodes that missed its last deadline: a site that cannot train may still score."""
    silent: set[int] = field(default_factory=set)
    """Nodes that missed the deadline of the last request of any kind."""
    bytes_out: int = 0
    bytes_in: int = 0
    other_code: set[int] = field(default_factory=set)
    """Nodes of which the server has warned that they run other code."""

    def enrol(self, instruction: Callable[[int], RoundInstruction], least: int, warn: Callable[[str], None]) -> None:
        """Start: ask every available node that is not a member; wait for `least` members, up to the deadline.

        Then it still waits for `expected` nodes, and GRACE_SECONDS for any other. While there are fewer members, nodes
        that rejected are invited again every ASK_AGAIN_SECONDS: a hospital may have corrected its data or settings. A
        simulation does not wait for that. `warn` receives each rejection at once.

        Args:
            instruction: a node's.

        Raises FederationError, with the rejections, when fewer take part by then.
        """
        self._drop_revoked()
        began = time.monotonic()
        end, due = began + self.deadline_seconds, began + ASK_AGAIN_SECONDS
        again: set[int] = set()
        enough_at = math.inf
        while True:
            over = time.monotonic() > end
            if not over:
                self._send_invitations(instruction, again)
            self._take_in_joined(warn)
            now, pending = time.monotonic(), {each.node for each in self.joining.values()}
            short, again = len(self.members) < least, set()
            enough_at = math.inf if short else min(enough_at, now)
            if not short and not (pending if now <= enough_at + GRACE_SECONDS else pending & self.expected):
                return
            if over or (self.folders and not pending):
                break
            if now >= due:
                due, again = now + ASK_AGAIN_SECONDS, set(self.rejecting) if short else set()
                self.write_line(f"{self._membership(least)}; waiting {duration(end - now)} more at most")
            time.sleep(poll_pause(now - began, end - now))
        if short:
            raise FederationError(f"federation: {self._membership(least)}{self._rejections()}")

    def invite(self, instruction: Callable[[int], RoundInstruction], warn: Callable[[str], None]) -> None:
        """Between rounds: ask nodes that are new, or whose request Flower has dropped; take in replies; never wait."""
        self._drop_revoked()
        self._send_invitations(instruction, set())
        self._take_in_joined(warn)

    def leave_out(self, reasons: Mapping[str, str]) -> None:
        """Members, by name with what each lacks, that cannot train with the others: no start waits for them."""
        for node, info in list(self.members.items()):
            if info.name in reasons:
                self.rejecting[node] = reasons[info.name]
                del self.members[node]

    def begin_again(self) -> None:
        """Have the members join anew, by another config; the next start waits for them."""
        self.expected |= set(self.members)
        self.members.clear()
        self.joining.clear()  # a late reply would be about the earlier config
        self.joined.clear()

    def ask(
        self,
        kind: str,
        instruction: RoundInstruction,
        arrays: Arrays,
        nodes: Sequence[int] | None = None,
        *,
        label: str = "",
        show: Callable[[Answers], None] = ignore_answers,
    ) -> Mapping[int, Message]:
        """The replies of these nodes, by default of all members, that arrive before the deadline.

        Args:
            label: the beginning of the lines about the replies.
            show: called again and again while it waits, and once afterwards.
        """
        self._drop_revoked()
        recipients = [node for node in (self.members if nodes is None else nodes) if node not in self.revoked]
        if not recipients:
            return {}
        request = OpenRequest({node: self._name(node) for node in recipients}, self.deadline_seconds, label)
        present = [node for node in recipients if (kind, node) not in self.away and node not in self.silent]
        waiting = self._push(kind, dict.fromkeys(recipients, pack_instruction(instruction, arrays)), request.end)
        self.bytes_out += len(recipients) * sum(array.nbytes for array in arrays.values())
        largest = LARGEST_ANSWER + LARGEST_ENCODING * sum(array.nbytes for array in arrays.values())
        while waiting:
            for node, reply in self._receive(waiting, largest):
                self.write_line(request.take(node, reply))
            show(request.answers)
            if request.is_over(present):
                break
            if (line := request.status()) is not None:
                self.write_line(line)
            self._collect_joined()
            if waiting:
                time.sleep(poll_pause(request.elapsed, request.deadline_seconds - request.elapsed))
        self.away = (self.away | {(kind, node) for node in request.missed}) - {(kind, node) for node in request.replies}
        self.silent = (self.silent | request.missed) - request.replies.keys()
        show(request.answers)
        self._drop_revoked()  # while the server waited
        return {node: reply for node, reply in request.replies.items() if node not in self.revoked}

    def counts(self) -> dict[str, SiteCounts]:
        """What each site stated that takes part, or did so until its key was revoked, by name."""
        keys = {} if self.registry is None else {site.node: site.key for site in self.registry.sites()}
        return {
            info.name: SiteCounts(
                patients=info.patients, cases=info.cases, slices=info.slices, key=keys.get(node), versions=info.versions
            )
            for node, info in {**self.revoked, **self.members}.items()
        }

    def pending_text(self) -> str:
        """`node 3 (12 min), node 4 (40 s)`: who has been invited and for how long; empty for nobody."""
        now = time.monotonic()
        return ", ".join(f"{self.label(each.node)} ({duration(now - each.sent)})" for each in self.joining.values())

    def failure(self, site: str, error: Error) -> str:
        """The reason of a site's error reply, by its code; in a simulation followed by the last line of its log."""
        reason = error_text(error.code)
        line = self.last_log_line(site) if error.code in SITE_ERROR_CODES else None
        return reason if line is None else f"{reason}: {line}"

    def _send_invitations(self, instruction: Callable[[int], RoundInstruction], again: set[int]) -> None:
        now = time.monotonic()
        self.joining = {name: each for name, each in self.joining.items() if now <= each.end}
        pending = {each.node for each in self.joining.values()}
        known = {*self.members, *self.rejecting, *pending}
        new = [node for node in self.grid.get_node_ids() if node not in known]
        if new:
            self.write_line(f"asking {counted(len(new), 'node')} whether to take part")
        contents = {node: pack_instruction(instruction(node), {}) for node in (*new, *again - pending)}
        end = now + self.deadline_seconds
        sent = self._push(PREFLIGHT, contents, end)
        self.joining |= {name: Invitation(node, now, end) for name, node in sent.items()}

    def _take_in_joined(self, warn: Callable[[str], None]) -> None:
        self._collect_joined()
        replies, self.joined = self.joined, []
        for node, reply in replies:
            self._take_in(node, reply, warn)

    def _push(self, kind: str, contents: Mapping[int, RecordDict], end: float) -> dict[str, int]:
        """Send each node its content, with a deadline on the monotonic clock; returns the node by message id."""
        if not contents:
            return {}
        ttl = max(1.0, end - time.monotonic())
        messages = [
            Message(content, dst_node_id=node, message_type=kind, ttl=ttl) for node, content in contents.items()
        ]
        # A message that could not be pushed has no id.
        pushed = zip(self.grid.push_messages(messages), contents, strict=False)
        return {message_id: node for message_id, node in pushed if message_id}

    def _collect_joined(self) -> None:
        """Fetch replies to invitations: Flower drops a reply with its request, however long a round is."""
        waiting = {name: invitation.node for name, invitation in self.joining.items()}
        self.joined += self._receive(waiting, LARGEST_ANSWER)
        self.joining = {name: self.joining[name] for name in waiting}

    def _receive(self, waiting: dict[str, int], largest: int) -> Iterator[tuple[int, Message]]:
        """The replies since the last call, with their nodes; their messages are removed from `waiting`.

        One whose arrays have more than `largest` bytes has no content.
        """
        # The SuperLink's own reply for a lost node comes from no node, so a reply's node is that of its request.
        for message_id, node in list(waiting.items()):
            reply = pull_reply(self.grid, message_id, largest)
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

    def _name(self, node: int) -> str:
        """The name of a member; the label of another node."""
        return self.members[node].name if node in self.members else self.label(node)

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
                raise FederationError("another site has its name; change name in its site.toml")
            if (lacking := self.unsuited(info)) is not None:
                raise FederationError(lacking)
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
        summary = f"{len(self.members)} of {least} required sites joined{f' ({names})' if names else ''}"
        pending = self.pending_text()
        return f"{summary}; no answer yet from {pending}" if pending else summary

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

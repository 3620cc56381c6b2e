"""The sites as a server sees them: who is there, who said yes, and asking them with a deadline."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from flwr.app import Error, Message
from flwr.serverapp import Grid

from ganseg_dist.errors import FederationError
from ganseg_dist.federation.flower import SITES_ERRORS, UNREADABLE, arrays_of, numbers_of, pack_instruction
from ganseg_dist.federation.round_instruction import RoundInstruction
from ganseg_dist.federation.shared_parameters import Arrays
from ganseg_dist.federation.site_info import SiteInfo
from ganseg_dist.plural import counted

POLL_SECONDS = 0.2
ASK_AGAIN_SECONDS = 30.0
"""While too few have said yes: until who said no is asked again, and until the next line on how it stands."""
JOIN = "query.preflight"
LOGGED_AT = re.compile(r"^\d{4}-\d\d-\d\dT\S+ ")
"""How a line of a site's log begins."""


def nobody_hears(text: str) -> None:
    """Says nothing."""


@dataclass(slots=True)
class Sites:
    """Asks sites through Flower's grid.

    A site that missed a deadline is asked again in the next round and no longer waited for, until it answers one.
    """

    grid: Grid
    deadline_seconds: float
    say: Callable[[str], None] = nobody_hears
    """Tells whoever waits what is asked, in a line; nobody, where a bar shows it."""
    homes: Mapping[str, Path] = field(default_factory=dict)
    """Of a simulation every site's folder by name, whose log says why it refused; a real one's stays where it is."""
    members: dict[int, SiteInfo] = field(default_factory=dict)
    """Sites that said yes, by node."""
    refused: dict[int, str] = field(default_factory=dict)
    """Nodes that said no, and why."""
    away: set[tuple[str, int]] = field(default_factory=set)
    """Kinds of message and the nodes that missed the last deadline of one: who cannot train may still score."""
    bytes_out: int = 0
    bytes_in: int = 0

    def enrol(self, instruction: RoundInstruction, least: int, warn: Callable[[str], None]) -> None:
        """Ask every node that is there and no member; wait for `least` members, up to the deadline.

        While there are fewer, who said no is asked again every ASK_AGAIN_SECONDS: a hospital may have mended what was
        wrong. In a simulation nothing would be mended.

        Args:
            warn: told at once who said no and why.

        Raises FederationError, saying who refused and why, when fewer have said yes by then.
        """
        end, due = time.monotonic() + self.deadline_seconds, time.monotonic() + ASK_AGAIN_SECONDS
        waiting: dict[str, int] = {}
        again: set[int] = set()
        while True:
            known = {*self.members, *waiting.values(), *self.refused}
            new = [node for node in self.grid.get_node_ids() if node not in known]
            if new:
                self.say(f"asking {counted(len(new), 'node')} whether to take part")
            waiting |= self._push(JOIN, instruction, {}, [*new, *again - set(waiting.values())], end)
            for node, reply in self._pull(waiting):
                self._take_in(node, reply, warn)
            short, again = len(self.members) < least, set()
            if not short and not waiting:
                return
            if time.monotonic() > end or (self.homes and not waiting):
                break
            if short and time.monotonic() >= due:
                due, again = time.monotonic() + ASK_AGAIN_SECONDS, set(self.refused)
                self.say(f"{self._membership(least)}; waiting {_lasting(end - time.monotonic())} more at most")
            time.sleep(POLL_SECONDS)
        if short:
            raise FederationError(f"federation: {self._membership(least)}{self._refusals()}")

    def ask(
        self,
        kind: str,
        instruction: RoundInstruction,
        arrays: Arrays,
        nodes: Sequence[int] | None = None,
        *,
        heard: Callable[[int, int], None] = lambda answered, asked: None,
    ) -> Mapping[int, Message]:
        """The replies that came before the deadline, by node.

        Args:
            kind: Flower's message type.
            nodes: whom to ask; none: every member.
            heard: told how many have answered.
        """
        asked = list(self.members) if nodes is None else list(nodes)
        if not asked:
            return {}
        end = time.monotonic() + self.deadline_seconds
        waiting = self._push(kind, instruction, arrays, asked, end)
        replies: dict[int, Message] = {}
        while waiting:
            for node, reply in self._pull(waiting):
                replies[node] = reply
                heard(len(replies), len(asked))
            present = [node for node in asked if (kind, node) not in self.away]
            if time.monotonic() > end or (present and all(node in replies for node in present)):
                break
            if waiting:
                time.sleep(POLL_SECONDS)
        self.away |= {(kind, node) for node in asked}
        self.away -= {(kind, node) for node in replies}
        return replies

    def why(self, site: str, error: Error) -> str:
        """What a site said instead of an answer; in a simulation with its own log's last words."""
        reason = error.reason or "the site failed"
        told = self.last_words(site) if error.code in SITES_ERRORS else None
        return reason if told is None else f"{reason}: {told}"

    def _push(
        self, kind: str, instruction: RoundInstruction, arrays: Arrays, nodes: Sequence[int], end: float
    ) -> dict[str, int]:
        """Ask them; the nodes by the message that each was sent.

        Args:
            end: on the monotonic clock, when an answer comes too late.
        """
        if not nodes:
            return {}
        content = pack_instruction(instruction, arrays)
        ttl = max(1.0, end - time.monotonic())
        messages = [Message(content, dst_node_id=node, message_type=kind, ttl=ttl) for node in nodes]
        self.bytes_out += len(nodes) * sum(array.nbytes for array in arrays.values())
        # A message without an id could not be pushed.
        pushed = zip(self.grid.push_messages(messages), nodes, strict=False)
        return {message_id: node for message_id, node in pushed if message_id}

    def _pull(self, waiting: dict[str, int]) -> list[tuple[int, Message]]:
        """What has been answered since, and by which node; it is waited for no longer."""
        if not waiting:
            return []
        # What the server's own link answers for a node that is gone comes from no node: replies are told apart by what
        # they answer.
        replies = list(self.grid.pull_messages(list(waiting)))
        self.bytes_in += sum(map(_size, replies))
        return [(waiting.pop(reply.metadata.reply_to_message_id), reply) for reply in replies]

    def _take_in(self, node: int, reply: Message, warn: Callable[[str], None]) -> None:
        """A member more, or a refusal."""
        try:
            if reply.has_error():
                raise FederationError(reply.error.reason or "the site failed")
            info = _site_info(reply)
            if any(info.name == member.name for member in self.members.values()):
                raise FederationError("another site has its name; change name in its site.json")
        except FederationError as error:
            if self.refused.get(node) != str(error):
                warn(f"node {node}: takes no part: {error}")
            self.refused[node] = str(error)
            return
        self.refused.pop(node, None)
        self.members = dict(sorted({**self.members, node: info}.items()))  # the first to answer is not the first
        self.say(f"{info.name} takes part, with {counted(info.patients, 'patient')}")

    def _membership(self, least: int) -> str:
        names = ", ".join(member.name for member in self.members.values())
        said = f"{counted(len(self.members), 'site')} said yes of the {least} that are needed"
        return f"{said} ({names})" if names else said

    def _refusals(self) -> str:
        """Who said no and why; in a simulation what the logs of those who are no members say."""
        members = {member.name for member in self.members.values()}
        logged = {site: self.last_words(site) for site in self.homes if site not in members}
        told = [f"{site}: {words}" for site, words in logged.items() if words is not None]
        return "".join(f"; {each}" for each in told or (f"node {node}: {why}" for node, why in self.refused.items()))

    def last_words(self, site: str) -> str | None:
        """What a simulated site's log says last; none of a real one's, and where there is no log."""
        with suppress(KeyError, OSError, IndexError):
            lines = (self.homes[site] / "site.log").read_text(encoding="utf-8").splitlines()
            return LOGGED_AT.sub("", lines[-1])
        return None


def _site_info(reply: Message) -> SiteInfo:
    words = arrays_of(reply.content).get("words")
    if words is None:
        raise FederationError(UNREADABLE)
    return SiteInfo.read(numbers_of(reply.content), words)


def _size(reply: Message) -> int:
    if reply.has_error():
        return 0
    return sum(len(array.data) for record in reply.content.array_records.values() for array in record.values())


def _lasting(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{max(seconds, 0):.0f} s"

"""The sites as a server sees them: who is there, who said yes, and asking them with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from flwr.app import Message
from flwr.serverapp import Grid

from ganseg_dist.errors import FederationError
from ganseg_dist.federation.exchange import Arrays
from ganseg_dist.federation.joining import Joining
from ganseg_dist.federation.order import Order
from ganseg_dist.runners.messages import UNREADABLE, arrays_of, asking, numbers_of

POLL_SECONDS = 0.2


@dataclass(slots=True)
class Sites:
    """Asks sites through Flower's grid.

    A site that missed a deadline is asked again in the next round and no longer waited for, until it answers one.
    """

    grid: Grid
    deadline_seconds: float
    members: dict[int, Joining] = field(default_factory=dict)
    """Sites that said yes, by node."""
    refused: dict[int, str] = field(default_factory=dict)
    """Nodes that said no, and why."""
    away: set[tuple[str, int]] = field(default_factory=set)
    """Kinds of message and the nodes that missed the last deadline of one: who cannot train may still score."""
    bytes_out: int = 0
    bytes_in: int = 0

    def enrol(self, order: Order, least: int) -> None:
        """Ask every node that is there and has not answered yet; wait for `least` members, up to the deadline.

        Raises FederationError, saying who refused and why, when fewer have said yes by then.
        """
        end = time.monotonic() + self.deadline_seconds
        while True:
            new = [node for node in self.grid.get_node_ids() if node not in self.members and node not in self.refused]
            for node, reply in sorted(self.ask("query.preflight", order, {}, new, until=end).items()):
                if reply.has_error():
                    self.refused[node] = reply.error.reason or "the site failed"
                    continue
                try:
                    joining = _joining(reply)
                except FederationError as error:
                    self.refused[node] = str(error)
                    continue
                if any(joining.name == member.name for member in self.members.values()):
                    self.refused[node] = "another site has its name; change name in its site.json"
                else:
                    self.members[node] = joining
            if len(self.members) >= least:
                return
            if time.monotonic() > end:
                why = "".join(f"; node {node}: {reason}" for node, reason in self.refused.items())
                raise FederationError(
                    f"federation: {len(self.members)} sites said yes of the {least} that are needed{why}"
                )
            time.sleep(POLL_SECONDS)

    def ask(
        self,
        kind: str,
        order: Order,
        arrays: Arrays,
        nodes: Sequence[int] | None = None,
        *,
        until: float | None = None,
        heard: Callable[[int, int], None] = lambda answered, asked: None,
    ) -> Mapping[int, Message]:
        """The replies that came before the deadline, by node.

        Args:
            kind: Flower's message type.
            nodes: whom to ask; none: every member.
            until: the deadline on the monotonic clock; none: a whole one from now.
            heard: told how many have answered.
        """
        asked = list(self.members) if nodes is None else list(nodes)
        if not asked:
            return {}
        end = time.monotonic() + self.deadline_seconds if until is None else until
        content = asking(order, arrays)
        ttl = max(1.0, end - time.monotonic())
        messages = [Message(content, dst_node_id=node, message_type=kind, ttl=ttl) for node in asked]
        # A message without an id could not be pushed. What the server's own link answers for a node that is gone comes
        # from no node: replies are told apart by what they answer.
        pushed = zip(self.grid.push_messages(messages), asked, strict=False)
        waiting = {message_id: node for message_id, node in pushed if message_id}
        self.bytes_out += len(asked) * sum(array.nbytes for array in arrays.values())
        replies: dict[int, Message] = {}
        while waiting:
            for reply in self.grid.pull_messages(list(waiting)):
                replies[waiting.pop(reply.metadata.reply_to_message_id)] = reply
                self.bytes_in += _size(reply)
                heard(len(replies), len(asked))
            present = [node for node in asked if (kind, node) not in self.away]
            if time.monotonic() > end or (present and all(node in replies for node in present)):
                break
            if waiting:
                time.sleep(POLL_SECONDS)
        self.away |= {(kind, node) for node in asked}
        self.away -= {(kind, node) for node in replies}
        return replies


def _joining(reply: Message) -> Joining:
    words = arrays_of(reply.content).get("words")
    if words is None:
        raise FederationError(UNREADABLE)
    return Joining.read(numbers_of(reply.content), words)


def _size(reply: Message) -> int:
    if reply.has_error():
        return 0
    return sum(len(array.data) for record in reply.content.array_records.values() for array in record.values())

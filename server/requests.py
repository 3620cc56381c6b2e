"""A request to several sites, who has answered it, and the lines that say so."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from flwr.app import Message

from ganseg_dist.plural import duration

STATUS_SECONDS = 30.0
"""Seconds of waiting until a line says for whom; the waiting time doubles from line to line."""


@dataclass(frozen=True, slots=True)
class Answers:
    """Who has answered a request so far."""

    seconds: Mapping[str, float]
    """Of the sites that have answered, in their order."""
    pending: tuple[str, ...]
    elapsed: float
    """Seconds since the request."""

    def waiting_for(self, most: int | None = None) -> str:
        """`waiting for north, south (2 min)`; empty if all have answered.

        Args:
            most: names; None: all.
        """
        shown = self.pending[:most]
        others = f" and {len(self.pending) - len(shown)} more" if len(shown) < len(self.pending) else ""
        return f"waiting for {', '.join(shown)}{others} ({duration(self.elapsed)})" if self.pending else ""


def ignore_answers(answers: Answers) -> None:
    """Shows nothing."""


@dataclass(slots=True)
class OpenRequest:
    """One request and the replies that have arrived; times are on the monotonic clock."""

    names: Mapping[int, str]
    """Of the nodes that were sent it."""
    deadline_seconds: float
    label: str = ""
    """Of every line about it."""
    replies: dict[int, Message] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)
    next_status: float = field(default_factory=lambda: STATUS_SECONDS)
    """Seconds after the request."""

    @property
    def elapsed(self) -> float:
        """Seconds since the request."""
        return time.monotonic() - self.began

    @property
    def end(self) -> float:
        """The deadline."""
        return self.began + self.deadline_seconds

    @property
    def missed(self) -> set[int]:
        """The nodes that have not answered."""
        return self.names.keys() - self.replies.keys()

    @property
    def answers(self) -> Answers:
        """Who has answered so far."""
        pending = tuple(name for node, name in self.names.items() if node not in self.replies)
        return Answers(dict(self.seconds), pending, self.elapsed)

    def take(self, node: int, reply: Message) -> str:
        """Keep a node's reply; a line about it and those that are still pending."""
        name = self.names[node]
        self.replies[node], self.seconds[name] = reply, self.elapsed
        did = "failed" if reply.has_error() else "answered"
        pending = self.answers.pending
        rest = f"waiting for {', '.join(pending)}" if pending else f"{len(self.names)} of {len(self.names)} have"
        return self._line(f"{name} has {did} after {duration(self.seconds[name])}; {rest}")

    def is_over(self, present: Sequence[int]) -> bool:
        """Whether the sites that are waited for have answered or the deadline has passed.

        Args:
            present: the sites that are waited for; without any, all of them are.
        """
        return self.elapsed > self.deadline_seconds or not self.missed.intersection(present or self.names)

    def status(self) -> str | None:
        """A line about the sites that are still pending, where one is due."""
        elapsed = self.elapsed
        if elapsed < self.next_status:
            return None
        self.next_status = 2 * elapsed
        more = duration(self.deadline_seconds - elapsed)
        return self._line(f"{self.answers.waiting_for()}, {more} more at most")

    def _line(self, text: str) -> str:
        return f"{self.label}: {text}" if self.label else text

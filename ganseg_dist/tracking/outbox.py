"""Sends in the background: in order, across outages, and without ever blocking the caller."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from ganseg_dist.tracking.connection import reason

CLOSE_SECONDS = 30.0
PAUSE_SECONDS = 1.0
HURRIED_PAUSE_SECONDS = 0.3
MOST_REJECTIONS = 5

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Parcel:
    """Something to send. Sending it twice must do no harm: a reply may get lost after the work was done."""

    what: str
    """Plural noun, for the count of what could not be sent."""
    count: int
    send: Callable[[], object]


class Outbox:
    """A queue with one thread that empties it.

    A parcel that fails while the destination is reachable is tried MOST_REJECTIONS times and then given up, so that a
    broken part of a server, such as its artifact store, does not delay the rest. While the destination is unreachable,
    everything waits in memory, in order.
    """

    def __init__(self, destination: str, is_reachable: Callable[[], bool]) -> None:
        """`is_reachable` makes a cheap request; both it and every `send` run in the outbox's thread."""
        self._destination, self._is_reachable = destination, is_reachable
        self._waiting: deque[Parcel] = deque()
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._given_up = threading.Event()
        self._lost: Counter[str] = Counter()
        self._reason = ""
        self._unreachable = False
        self._thread = threading.Thread(target=self._work, name="ganseg-outbox", daemon=True)
        self._thread.start()

    def put(self, parcel: Parcel) -> None:
        """Queue a parcel; returns at once."""
        with self._changed:
            self._waiting.append(parcel)
            self._changed.notify_all()

    def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Send what waits, give up once nothing got through for `seconds`, and log what was lost."""
        if self._closing.is_set():
            return
        with self._changed:
            self._closing.set()
            self._changed.notify_all()
            while self._waiting:
                head = self._waiting[0]
                if not self._changed.wait_for(partial(self._got_through, head), seconds):
                    break
            self._given_up.set()
            for parcel in self._waiting:
                self._lost[parcel.what] += parcel.count
        if self._lost:
            lost = " and ".join(f"{count} {what}" for what, count in self._lost.items())
            logger.warning("%s: %s could not be sent (%s)", self._destination, lost, self._reason or "no answer")

    def _got_through(self, parcel: Parcel) -> bool:
        return not self._waiting or self._waiting[0] is not parcel

    def _work(self) -> None:
        while (parcel := self._next()) is not None:
            sent = self._deliver(parcel)
            with self._changed:
                if self._given_up.is_set():
                    return
                if not sent:
                    self._lost[parcel.what] += parcel.count
                self._waiting.popleft()  # only now: until then a closing outbox counts it among the waiting
                self._changed.notify_all()

    def _next(self) -> Parcel | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing.is_set())
            return self._waiting[0] if self._waiting else None

    def _deliver(self, parcel: Parcel) -> bool:
        """Whether the parcel was sent; False when it was rejected too often or the outbox has given up."""
        rejections = 0
        while not self._given_up.is_set():
            try:
                parcel.send()
            except Exception as error:  # servers, databases and disks raise errors of many classes
                self._reason = reason(error)
                if self._is_reachable():
                    self._unreachable = False
                    rejections += 1
                else:
                    self._warn_unreachable()
            else:
                self._unreachable = False
                return True
            if rejections == MOST_REJECTIONS:
                self._warn_rejected(parcel)
                return False
            self._pause()
        return False

    def _pause(self) -> None:
        if self._closing.wait(PAUSE_SECONDS):
            time.sleep(HURRIED_PAUSE_SECONDS)

    def _warn_unreachable(self) -> None:
        if not self._unreachable:
            self._unreachable = True
            logger.warning(
                "%s is not answering (%s); training continues, metrics wait", self._destination, self._reason
            )

    def _warn_rejected(self, parcel: Parcel) -> None:
        if parcel.what not in self._lost:
            logger.warning("%s rejects %s (%s); training continues", self._destination, parcel.what, self._reason)

"""Flower's grid without Flower's processes: sites run in this process, or in Ray tasks on a running cluster.

Flower's own simulation starts and stops its own Ray and takes all its cores. The message API does not: an unmodified
ClientApp runs behind either grid.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.serverapp import Grid

from ganseg_dist.compat.flower import identify_server, set_message_id
from ganseg_dist.errors import GansegError
from ganseg_dist.federation.protocol import PROCESS_DIED

RUN = 1

Answer = Callable[[Message, Context], Message]
"""A ClientApp, or a function with its signature."""


class InProcessGrid(Grid):
    """Runs the sites, given as node configs by ids above 0, one after the other in this process."""

    def __init__(self, answer: Answer, nodes: Mapping[int, Mapping[str, str]]) -> None:
        logging.getLogger("flwr").setLevel(logging.WARNING)  # progress is shown as for any training
        identify_server(RUN)
        self.answer = answer
        self.nodes = nodes
        self.waiting: dict[str, Message] = {}
        self.sent = 0

    def set_run(self, run: Any) -> None:
        """Not needed: there is one run."""

    @property
    def run(self) -> Any:
        """Raises GansegError: a simulated grid has no SuperLink whose run it could be."""
        raise GansegError("grid: a simulated one belongs to no run of a SuperLink")

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Flower's message with these fields."""
        return Message(content, dst_node_id, message_type, group_id=group_id, ttl=ttl)

    def get_node_ids(self) -> Iterable[int]:
        """Every node: none of them ever leaves."""
        return list(self.nodes)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Number each message; its site runs when the reply is pulled."""
        ids = []
        for message in messages:
            self.sent += 1
            set_message_id(message, str(self.sent))
            self.waiting[str(self.sent)] = message
            ids.append(str(self.sent))
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The reply to the first of these messages that has none yet."""
        for message_id in message_ids:
            message = self.waiting.pop(message_id, None)
            if message is not None:
                return [self.answer(message, self._context(message))]
        return []

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Every reply that arrives within `timeout` seconds."""
        end = None if timeout is None else time.monotonic() + timeout
        waiting = set(self.push_messages(messages))
        replies: list[Message] = []
        while waiting and (end is None or time.monotonic() < end):
            for reply in self.pull_messages(list(waiting)):
                waiting.discard(reply.metadata.reply_to_message_id)
                replies.append(reply)
        return replies

    def _context(self, message: Message) -> Context:
        node = message.metadata.dst_node_id
        return Context(RUN, node, dict(self.nodes[node]), RecordDict(), {})


class RayGrid(InProcessGrid):
    """Runs the sites as Ray tasks, which share a device if they get a fraction of it.

    A site that has not answered by its message's time-to-live is killed.
    """

    def __init__(
        self, answer: Answer, nodes: Mapping[int, Mapping[str, str]], *, cpus: float = 1, gpus: float = 0
    ) -> None:
        import ray

        super().__init__(answer, nodes)
        # The federation handles a dead site, which may answer the next round.
        self.task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(_answer)
        self.running: dict[str, tuple[Any, Message, float]] = {}
        """By message id: the task's reference, the message, and its deadline on the monotonic clock."""

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Start a task for each message."""
        ids = list(super().push_messages(messages))
        for message_id in ids:
            message = self.waiting.pop(message_id)
            reference = self.task.remote(self.answer, message, self._context(message))
            self.running[message_id] = (reference, message, time.monotonic() + message.metadata.ttl)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies since the last call; a dead task is answered by an error, an overdue one is killed."""
        import ray

        wanted = {self.running[message_id][0]: message_id for message_id in message_ids if message_id in self.running}
        done, _ = ray.wait(list(wanted), num_returns=len(wanted), timeout=0) if wanted else ([], [])
        replies = []
        for reference in done:
            _, message, _ = self.running.pop(wanted[reference])
            try:
                replies.append(ray.get(reference))
            except ray.exceptions.RayError:
                replies.append(Message(Error(*PROCESS_DIED), reply_to=message))
        now = time.monotonic()
        for message_id, (reference, _, end) in list(self.running.items()):
            if now > end:
                ray.cancel(reference, force=True)
                del self.running[message_id]
        return replies


def _answer(answer: Answer, message: Message, context: Context) -> Message:
    """Runs on a Ray worker."""
    return answer(message, context)

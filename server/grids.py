"""Flower's grid without Flower's processes: messages to sites in this process, or in Ray tasks on a cluster that stays.

Flower's own simulation starts and stops a Ray of its own and takes all its cores. The message API does not: an
unmodified ClientApp runs behind either grid. What is private to Flower is touched here and nowhere else.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from ganseg_dist.errors import GansegError

RUN = 1
DIED = (2000, "the site's process died")

Answer = Callable[[Message, Context], Message]
"""A ClientApp, or what behaves like one."""


class InProcessGrid(Grid):
    """Sites one after the other in this process."""

    def __init__(self, answer: Answer, nodes: Mapping[int, Mapping[str, str]]) -> None:
        """Args:
        nodes: each site's node config by its id, which is above 0.
        """
        logging.getLogger("flwr").setLevel(logging.WARNING)  # the rounds are shown as any training is
        # A SuperLink would tell this process who it is; a message cannot be made without.
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = RUN, 0, 0
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
        """As Flower's."""
        return Message(content, dst_node_id, message_type, group_id=group_id, ttl=ttl)

    def get_node_ids(self) -> Iterable[int]:
        """All of them, always."""
        return list(self.nodes)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Number each message; it is answered when its reply is asked for."""
        ids = []
        for message in messages:
            self.sent += 1
            message.metadata.__dict__["_message_id"] = str(self.sent)
            self.waiting[str(self.sent)] = message
            ids.append(str(self.sent))
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The next reply."""
        for message_id in message_ids:
            message = self.waiting.pop(message_id, None)
            if message is not None:
                return [self.answer(message, self._context(message))]
        return []

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Every reply that comes in time."""
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
    """Sites as Ray tasks. A site that has not answered when its message's time is over is killed."""

    def __init__(
        self, answer: Answer, nodes: Mapping[int, Mapping[str, str]], *, cpus: float = 1, gpus: float = 0
    ) -> None:
        """Args:
        cpus, gpus: what each site's task is given; fractions share one.
        """
        import ray

        super().__init__(answer, nodes)
        # A dead site is the federation's to judge: it may answer the next round.
        self.task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(_answer)
        self.running: dict[str, tuple[Any, Message, float]] = {}
        """By message: its task, itself, and when its time is over."""

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Start a task for each."""
        ids = list(super().push_messages(messages))
        for message_id in ids:
            message = self.waiting.pop(message_id)
            reference = self.task.remote(self.answer, message, self._context(message))
            self.running[message_id] = (reference, message, time.monotonic() + message.metadata.ttl)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """What has been answered since; a task that died is an error, one that takes too long is killed."""
        import ray

        wanted = {self.running[message_id][0]: message_id for message_id in message_ids if message_id in self.running}
        done, _ = ray.wait(list(wanted), num_returns=len(wanted), timeout=0.1) if wanted else ([], [])
        replies = []
        for reference in done:
            _, message, _ = self.running.pop(wanted[reference])
            try:
                replies.append(ray.get(reference))
            except ray.exceptions.RayError:
                replies.append(Message(Error(*DIED), reply_to=message))
        now = time.monotonic()
        for message_id, (reference, _, end) in list(self.running.items()):
            if now > end:
                ray.cancel(reference, force=True)
                del self.running[message_id]
        return replies


def _answer(answer: Answer, message: Message, context: Context) -> Message:
    """On a worker."""
    return answer(message, context)

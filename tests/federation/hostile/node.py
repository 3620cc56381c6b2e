"""A node of Flower without Flower's node: connects over TLS with a key, and answers in this process.

Flower's SuperNode starts a process for every message. A site that receives thousands of them, and a hostile one that
answers for a hundred keys, use this in its place. What a function answers is sent as it is, whatever it is.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.app import Context, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.inflatable.inflatable_utils import pull_and_inflate_object_from_tree
from flwr.supercore.run import RunNotRunningException
from flwr.supernode.fleet_http_connection import http_request_response

from server.grids import Answer

IDLE_SECONDS = 1.0
"""Between two requests for a message when there was none."""


@dataclass(frozen=True, slots=True)
class Connected:
    """One key's connection, as Flower's functions."""

    node: int
    name: str
    receive: Callable[[], Any]
    send: Callable[..., Any]
    pull_object: Callable[[int, str], bytes]
    push_object: Callable[[int, str, str, bytes], None]
    confirm: Callable[[int, str], None]
    config: Mapping[str, str]

    def answer(self, answer: Answer) -> bool:
        """Answer the next message. Returns whether there was one."""
        received = self.receive()
        if received is None:
            return False
        head, tree = received
        run = head.metadata.run_id
        message = pull_and_inflate_object_from_tree(
            tree, partial(self.pull_object, run), partial(self.confirm, run), return_type=Message
        )
        message.metadata.__dict__["_message_id"] = tree.object_id
        self._reply(answer(message, Context(run, self.node, dict(self.config), RecordDict(), {})))
        return True

    def _reply(self, reply: Message) -> None:
        reply.metadata.__dict__["_message_id"] = reply.object_id
        objects = get_all_nested_objects(reply)
        wanted, session = self.send(remove_content_from_message(reply), get_object_tree(reply), 0.0)
        for name, item in objects.items():
            if name in wanted:
                self.push_object(reply.metadata.run_id, session, name, item.deflate())


def serve(
    server: str,
    authority: Path,
    keys: Mapping[str, Path],
    answer: Callable[[str], Answer],
    configs: Mapping[str, Mapping[str, str]],
    *,
    threads: int = 4,
) -> None:
    """Connect every key and answer its messages until the process is killed; prints `connected` once all are.

    Args:
        server: HOST:PORT.
        authority: path of ca.crt.
        keys: secret keys by name.
        answer: the app of a name.
        configs: node configs by name.
    """
    with ExitStack() as stack:
        connected = []
        for name, file in keys.items():
            key = load_ssh_private_key(file.read_bytes(), None)
            connection = http_request_response(server, False, authority.read_bytes(), (key, key.public_key()))
            node, receive, send, _, _, pull, push, confirm = stack.enter_context(connection)
            connected.append(Connected(node, name, receive, send, pull, push, confirm, configs.get(name, {})))
        print("connected", flush=True)
        workers = [
            threading.Thread(target=_work, args=(connected[start::threads], answer), daemon=True)
            for start in range(min(threads, len(connected)))
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()


def _work(connected: list[Connected], answer: Callable[[str], Answer]) -> None:
    while True:
        busy = False
        for each in connected:
            try:
                busy |= each.answer(answer(each.name))
            except RunNotRunningException:
                pass
            except Exception as error:  # the SuperLink rejects it: the next message gets another answer
                print(f"not delivered: {type(error).__name__}", flush=True)
        if not busy:
            time.sleep(IDLE_SECONDS)

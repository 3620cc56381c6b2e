"""A hostile site in a process of its own, with many keys: `python -m tests.federation.hostile.site FOLDER SERVER:PORT`.

FOLDER has `keys/` and `hostile.json` with the names: `members` join as honest sites do and attack with every other
message, `nonmembers` attack with their reply to the invitation. The next attack of a kind is one of `site_attacks`
until each was sent, then a seeded random mutation of an honest reply. What was sent is written to `attacks.jsonl`.
"""

from __future__ import annotations

import json
import random
import sys
import threading
from collections import Counter
from pathlib import Path

from flwr.app import Context, Message

from ganseg_dist.federation.flower import unpack_instruction
from ganseg_dist.federation.protocol import PREFLIGHT
from server.grids import Answer
from tests.federation.hostile.mutations import mutated
from tests.federation.hostile.node import serve
from tests.federation.hostile.site_attacks import BY_KIND, honest


class HostileSite:
    """The attacks of all keys."""

    def __init__(self, folder: Path, members: set[str]) -> None:
        self.folder, self.members = folder, members
        self.lock = threading.Lock()
        self.sent: Counter[str] = Counter()

    def app(self, name: str) -> Answer:
        """A key's."""

        def answer(message: Message, context: Context) -> Message:
            kind = message.metadata.message_type
            if (kind == PREFLIGHT) == (name in self.members):
                return honest(message, name)
            return self.attack(message, name, kind)

        return answer

    def attack(self, message: Message, name: str, kind: str) -> Message:
        """The next attack of this kind."""
        with self.lock:
            number = self.sent[kind]
            self.sent[kind] += 1
        known = list(BY_KIND[kind].items())
        instruction = unpack_instruction(message.content)
        if number < len(known):
            title, change = known[number]
            reply = change(honest(message, name))
        else:
            title = f"mutation {number}"
            reply = self.mutation(message, name, number)
        sent = {"site": name, "run": instruction.run, "kind": kind, "round": instruction.round, "attack": title}
        with self.lock, (self.folder / "attacks.jsonl").open("a") as file:
            file.write(json.dumps(sent) + "\n")
        return reply

    def mutation(self, message: Message, name: str, seed: int) -> Message:
        """A random mutation that Flower's format can express."""
        rng = random.Random(seed)
        while True:
            reply = honest(message, name)
            reply.content = mutated(reply.content, rng)
            try:
                assert reply.object_id
            except Exception:  # such as a text with half a surrogate pair, or a number above 2^63
                continue
            return reply


def main() -> None:
    """Attack until the process is killed."""
    folder, server = Path(sys.argv[1]), sys.argv[2]
    names = json.loads((folder / "hostile.json").read_text())
    keys = {name: folder / "keys" / f"{name}.key" for name in (*names["members"], *names["nonmembers"])}
    site = HostileSite(folder, set(names["members"]))
    serve(server, folder / "keys" / "ca.crt", keys, site.app, {})


if __name__ == "__main__":
    main()

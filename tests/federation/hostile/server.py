"""A hostile server's Flower app, which a bundle without code names: hospitals run only their own.

It sends every site of the run config's `sites` what `server_attacks` lists, and the ones named in `victims` a number of
seeded random mutations of each kind of honest message as well. What came back is written to `outcome.json` in `folder`.
"""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from flwr.app import Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

from ganseg_dist.compat.flower_replies import pull_reply
from ganseg_dist.config import override
from ganseg_dist.federation.flower import pack_instruction
from ganseg_dist.federation.protocol import EVALUATE, FINGERPRINT, FINISH, PREFLIGHT, TRAIN, RoundInstruction
from ganseg_dist.systems import recipe
from server.site_registry import Registry
from tests.federation.hostile.mutations import mutated
from tests.federation.hostile.server_attacks import ATTACKS
from tests.federation.hostile.site_attacks import CONFIG
from tests.federation.initial import initial_weights

RUN = "attacked"
SECONDS = 600.0
BATCH = 50
"""Messages that are under way at a time."""
POSITIONS = {PREFLIGHT: (0, 0, 0, 0), FINGERPRINT: (0, 0, 0, 0), TRAIN: (1, 0, 0, 1), EVALUATE: (1, 0, 1, 1),
             FINISH: (1, 1, 0, 0)}  # fmt: skip
"""Round, stage, first and last epoch, as the schedule has them."""

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Attack, and write down what came back."""
    settings = context.run_config
    folder = Path(str(settings["folder"]))
    nodes = {site.name: site.node for site in Registry.from_environment().sites()}
    config = override(recipe("ganet_seg_debug"), {**CONFIG, "train.epochs": 1})
    weights = initial_weights(config)
    outcome: dict[str, dict[str, Counter[str]]] = {}
    for site in str(settings["sites"]).split(","):
        outcome[site] = {}
        mutations = int(str(settings["mutations"])) if site in str(settings["victims"]).split(",") else 0
        for turn, kind in enumerate(POSITIONS):
            arrays = weights if kind in (TRAIN, EVALUATE, FINISH) else {}
            honest = pack_instruction(RoundInstruction(RUN, *POSITIONS[kind], config=config.to_json()), arrays)
            attacks = list(ATTACKS.values()) if mutations else list(ATTACKS.values())[turn :: len(POSITIONS)]
            contents = [honest, *attacks, *islice(_mutations(honest), mutations)]
            outcome[site][kind] = Counter()
            for some in _batches(contents):
                outcome[site][kind].update(_sent(grid, nodes[site], kind, some))
            print(f"{site}: {kind}: {dict(outcome[site][kind])}", flush=True)
    (folder / "outcome.json").write_text(json.dumps(outcome))


def _batches(contents: list[RecordDict]) -> Iterator[list[RecordDict]]:
    for start in range(0, len(contents), BATCH):
        yield contents[start : start + BATCH]


def _mutations(honest: RecordDict) -> Iterator[RecordDict]:
    """Random ones that Flower's format can express."""
    rng = random.Random(0)
    while True:
        content = mutated(honest, rng)
        try:
            assert content.object_id
        except Exception:  # such as a text with half a surrogate pair
            continue
        yield content


def _sent(grid: Grid, node: int, kind: str, contents: list[RecordDict]) -> Counter[str]:
    """How many messages had which reply: `answer`, an error's code, or `none`."""
    messages = [Message(content, dst_node_id=node, message_type=kind, ttl=SECONDS) for content in contents]
    waiting = set(grid.push_messages(messages))
    outcome: Counter[str] = Counter()
    end = time.monotonic() + SECONDS
    while waiting and time.monotonic() < end:
        for message_id in list(waiting):
            reply = pull_reply(grid, message_id, 2**24)
            if reply is not None:
                waiting.discard(message_id)
                outcome[str(reply.error.code) if reply.has_error() else "answer"] += 1
        time.sleep(0.2)
    outcome["none"] += len(waiting)
    return outcome

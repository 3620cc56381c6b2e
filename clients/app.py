"""The hospital's Flower app: passes each message to `Site` and sends its reply, once the egress manifest records it.

`home` in the node's config names the hospital's folder (`clients.node`).
"""

from __future__ import annotations

import datetime
import logging
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from numpy.typing import NDArray

from clients.egress import EgressManifest
from clients.limits import one_process, time_limit
from clients.node import SiteNode
from ganseg_dist.errors import ConfigError, FederationError, GansegError
from ganseg_dist.federation.egress_manifest import Content
from ganseg_dist.federation.flower import arrays_of, pack_reply, unpack_instruction
from ganseg_dist.federation.protocol import (
    EVALUATE,
    FINGERPRINT,
    FINISH,
    PREFLIGHT,
    TRAIN,
    RoundInstruction,
    describe_error,
    kind_of,
)
from ganseg_dist.federation.versions import difference
from ganseg_dist.printable import printable, printable_lines, shortened
from ganseg_dist.runs import named_run

logger = logging.getLogger(__name__)
"""Written to a node's output (`clients.bundle`); a simulation has no handler for it."""

LONGEST_ENTRY = 20_000
"""Characters of an entry in a site's log."""
LARGEST_LOG = 10 * 2**20
"""Bytes of a site's log; a larger one becomes site.log.1, in place of an earlier one."""

app = ClientApp()


@dataclass(frozen=True, slots=True)
class Reply:
    """What a site sends: arrays and numbers."""

    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    numbers: Mapping[str, float] = field(default_factory=dict)
    noise_multiplier: float | None = None
    """Of the noise that the site added to the arrays, by which its budget is counted."""


Handler = Callable[[SiteNode, RoundInstruction, RecordDict], Reply]


def _replying(message_type: str) -> Callable[[Handler], Callable[[Message, Context], Message]]:
    """Make an answer to messages of a type Flower's handler of them."""
    return lambda answer: partial(_handle, message_type, answer)


def _handle(message_type: str, answer: Handler, message: Message, context: Context) -> Message:
    """A reply, recorded in the manifest before it leaves, or an error of SITE_ERRORS.

    The full error is written to the site's log only.
    """
    node = _node_of(context)
    instruction = None
    try:
        node.make_private()
        if message.metadata.message_type != message_type:  # Flower has several names for one handler
            raise FederationError("message: is of another type than agreed on")
        instruction = unpack_instruction(message.content)
        with one_process(node.folder), time_limit(node.settings.policy.minutes):
            reply = answer(node, instruction, message.content)
            sent = Content.of(
                kind_of(message_type), instruction.run, instruction.round, reply.arrays, reply.numbers,
                reply.noise_multiplier,
            )  # fmt: skip
            EgressManifest(node.manifest).record(sent)
        return Message(pack_reply(reply.arrays, reply.numbers), reply_to=message)
    except Exception as error:
        _log(node, error)
        code, reason = describe_error(error)
        run, number = (instruction.run, instruction.round) if instruction else ("unknown", 0)
        with suppress(GansegError):  # full disk: an unrecorded error beats a server that waits in vain
            EgressManifest(node.manifest).record(Content.of("error", run, number, {}, {"code": code}))
        return Message(Error(code, reason), reply_to=message)


@app.query(kind_of(PREFLIGHT))
@_replying(PREFLIGHT)
def preflight(node: SiteNode, instruction: RoundInstruction, content: RecordDict) -> Reply:
    """The site takes part and sends its counts, or rejects with one of SITE_ERRORS."""
    other = difference(instruction.versions, "the server")
    if other is not None:
        logger.warning("warning: %s", other)
        _write_log(node, f"warning: {other}")
    info = node.join(instruction)
    return Reply({"description": info.description()}, info.counts())


@app.query(kind_of(FINGERPRINT))
@_replying(FINGERPRINT)
def fingerprint(node: SiteNode, instruction: RoundInstruction, content: RecordDict) -> Reply:
    """Histograms of the site's data over coarse bins."""
    return Reply(node.fingerprint(instruction).points)


@app.train()
@_replying(TRAIN)
def train(node: SiteNode, instruction: RoundInstruction, content: RecordDict) -> Reply:
    """One round at the site."""
    site = node.site(TRAIN, instruction)
    arrays, scores = site.train(instruction, arrays_of(content))
    return Reply(arrays, scores.to_numbers(), site.noise_multiplier(instruction.settings))


@app.evaluate()
@_replying(EVALUATE)
def evaluate(node: SiteNode, instruction: RoundInstruction, content: RecordDict) -> Reply:
    """Validation scores of the server's weights."""
    scores = node.site(EVALUATE, instruction).evaluate(instruction, arrays_of(content))
    return Reply(numbers=scores.to_numbers())


@app.train(kind_of(FINISH))
@_replying(FINISH)
def finish(node: SiteNode, instruction: RoundInstruction, content: RecordDict) -> Reply:
    """After the last round, the site stores its run and model."""
    node.finish(instruction, arrays_of(content))
    return Reply(numbers={"finished": 1})


def _node_of(context: Context) -> SiteNode:
    """The folder that the node's config names; for a node that Flower simulates, one that the simulation made."""
    folder, partition_id = context.node_config.get("home"), context.node_config.get("partition-id")
    if folder is not None:
        return SiteNode(Path(str(folder)))
    if partition_id is None:
        raise ConfigError("home: the node's config names none; start it with --node-config \"home='FOLDER'\"")
    simulation = named_run(str(context.run_config["run-name"]))
    return SiteNode(sorted((simulation.folder / "sites").iterdir())[int(partition_id)])


def _log(node: SiteNode, error: Exception) -> None:
    user_error = isinstance(error, GansegError)
    text = printable(str(error)) if user_error else "".join(traceback.format_exception(error))
    logger.info("error: %s", error if user_error else f"{type(error).__name__}; see {node.folder / 'site.log'}")
    _write_log(node, text)


def _write_log(node: SiteNode, text: str) -> None:
    """Append a text to the site's log, with its time.

    Lines after the first are indented and control characters visible: a server's message may be quoted in the text, and
    must not look like an entry of the log.
    """
    node.folder.mkdir(parents=True, exist_ok=True)
    text = shortened(printable_lines(text).replace("\n", "\n    "), LONGEST_ENTRY)
    file = node.folder / "site.log"
    with suppress(FileNotFoundError):
        if file.stat().st_size > LARGEST_LOG:
            file.replace(file.with_name("site.log.1"))
    with file.open("a", encoding="utf-8") as log:
        log.write(f"{datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')} {text}\n")

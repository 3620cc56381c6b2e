"""The hospital's Flower app: message to `Site` and back. Nothing leaves that the manifest does not hold first.

`node` in the node's config names the hospital's folder (`clients.node`).
"""

from __future__ import annotations

import datetime
import logging
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp
from flwr.common.constant import PARTITION_ID_KEY
from numpy.typing import NDArray

from clients.egress import EgressManifest
from clients.node import SiteNode
from ganseg_dist.errors import ConfigError, DataError, FederationError, GansegError, RunError, TrainingDiverged
from ganseg_dist.federation.flower import CONFIG_REFUSED, arrays_of, pack_reply, unpack_instruction
from ganseg_dist.federation.round_instruction import RoundInstruction, Scores
from ganseg_dist.runs import named_run

REASONS: Mapping[type[Exception], tuple[int, str]] = {
    DataError: (1001, "the site's data do not pass its own checks"),
    ConfigError: (CONFIG_REFUSED, "the site refuses the config"),
    FederationError: (1003, "the message breaks what was agreed on"),
    TrainingDiverged: (1004, "a loss became infinite at the site"),
    RunError: (1005, "the site cannot read its own state"),
    GansegError: (1006, "the site cannot write"),
}
"""All that a server is told of an error: no text of an exception leaves, which may hold a path, a name or a value.

Codes are of `messages.SITES_ERRORS`.
"""
UNKNOWN = (1000, "the site failed; its own log says why")

SAID = logging.getLogger(__name__)
"""What a node's own output shows (`clients.bundle`); in a simulation nobody listens."""

app = ClientApp()


@app.query("preflight")
def preflight(message: Message, context: Context) -> Message:
    """Yes with counts, or no with one of REASONS."""

    def answer(node: SiteNode, instruction: RoundInstruction) -> Message:
        info = node.join(instruction.run, instruction.settings)
        return _reply(message, node, instruction, {"words": info.words()}, info.counts())

    return _handle(message, context, answer)


@app.query("fingerprint")
def fingerprint(message: Message, context: Context) -> Message:
    """How the site's patients spread over coarse bins."""

    def answer(node: SiteNode, instruction: RoundInstruction) -> Message:
        return _reply(message, node, instruction, node.fingerprint(instruction.settings).to_arrays(), {})

    return _handle(message, context, answer)


@app.train()
def train(message: Message, context: Context) -> Message:
    """One round at the site."""

    def answer(node: SiteNode, instruction: RoundInstruction) -> Message:
        arrays, scores = node.site(instruction.run, instruction.settings).train(instruction, arrays_of(message.content))
        return _reply(message, node, instruction, arrays, _metrics(scores))

    return _handle(message, context, answer)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Validation scores of the server's weights."""

    def answer(node: SiteNode, instruction: RoundInstruction) -> Message:
        scores = node.site(instruction.run, instruction.settings).evaluate(instruction, arrays_of(message.content))
        return _reply(message, node, instruction, {}, _metrics(scores))

    return _handle(message, context, answer)


@app.train("finish")
def finish(message: Message, context: Context) -> Message:
    """The federation is over: the site keeps a run and a model of its own."""

    def answer(node: SiteNode, instruction: RoundInstruction) -> Message:
        node.finish(instruction, arrays_of(message.content))
        return _reply(message, node, instruction, {}, {"finished": 1})

    return _handle(message, context, answer)


def _handle(message: Message, context: Context, answer: Callable[[SiteNode, RoundInstruction], Message]) -> Message:
    """The answer, or an error that says no more than REASONS; the whole of it stays in the site's log."""
    node = _node_of(context)
    instruction = None
    try:
        node.make_private()
        instruction = unpack_instruction(message.content)
        return answer(node, instruction)
    except Exception as error:
        _log(node, error)
        code, reason = next((said for kind, said in REASONS.items() if isinstance(error, kind)), UNKNOWN)
        run, number = (instruction.run, instruction.round) if instruction else ("unknown", 0)
        with suppress(GansegError):  # a full disk: of the two, the server's waiting for nothing is worse
            EgressManifest(node.manifest).record("error", run, number, {}, {"code": code})
        return Message(Error(code, reason), reply_to=message)


def _node_of(context: Context) -> SiteNode:
    """The folder that the node names; of a node that Flower simulates, the one that the simulation made for it."""
    named, place = context.node_config.get("home"), context.node_config.get(PARTITION_ID_KEY)
    if named is not None:
        return SiteNode(Path(str(named)))
    if place is None:
        raise ConfigError("home: the node's config names none; start it with --node-config \"home='FOLDER'\"")
    simulation = named_run(str(context.run_config["run-name"]))
    return SiteNode(sorted((simulation.folder / "sites").iterdir())[int(place)])


def _metrics(scores: Scores) -> dict[str, float]:
    return {"num-examples": scores.examples, **scores.values}


def _reply(
    message: Message,
    node: SiteNode,
    instruction: RoundInstruction,
    arrays: Mapping[str, NDArray[Any]],
    metrics: Mapping[str, float],
) -> Message:
    """What leaves, written into the manifest before it does."""
    kind = message.metadata.message_type.rpartition(".")[2]
    EgressManifest(node.manifest).record(kind, instruction.run, instruction.round, arrays, metrics)
    return Message(pack_reply(arrays, metrics), reply_to=message)


def _log(node: SiteNode, error: Exception) -> None:
    node.folder.mkdir(parents=True, exist_ok=True)
    mendable = isinstance(error, GansegError)
    told = str(error) if mendable else "".join(traceback.format_exception(error))
    SAID.info("error: %s", error if mendable else f"{type(error).__name__}; see {node.folder / 'site.log'}")
    with (node.folder / "site.log").open("a", encoding="utf-8") as log:
        log.write(f"{datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')} {told}\n")

"""The messages between a federation's two ends, and the checks of what the other end sends.

    type          the server sends              a site replies
    PREFLIGHT     instruction                   a `SiteInfo`: counts as numbers, the rest as an array
    FINGERPRINT   instruction                   arrays of a fingerprint
    TRAIN         instruction, shared weights   encoded weights, `Scores`: losses
    EVALUATE      instruction, shared weights   `Scores` of validation
    FINISH        instruction, shared weights   nothing

or, to any of them, one of SITE_ERRORS. `federation.flower` packs all of it into Flower's records.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field, StrictInt, TypeAdapter, with_config
from pydantic_core import from_json

from ganseg_dist import __version__
from ganseg_dist.config import RunConfig
from ganseg_dist.errors import (
    ConfigError,
    DataError,
    FederationError,
    GansegError,
    PolicyError,
    RunError,
    TrainingDiverged,
)
from ganseg_dist.federation.egress_manifest import Digest
from ganseg_dist.federation.versions import (
    PROTOCOL,
    PROTOCOL_CODES,
    CodeDigest,
    OtherProtocolError,
    Protocol,
    Version,
    Versions,
    check_protocol,
    code_digest,
    protocol_difference,
)
from ganseg_dist.names import RunName, SiteName

PREFLIGHT, FINGERPRINT, TRAIN, EVALUATE, FINISH = (
    "query.preflight", "query.fingerprint", "train", "evaluate", "train.finish"
)  # fmt: skip
"""Types of messages, by which Flower finds the function of a site's app."""

COMMAND = "flwr run"
"""Recorded as a run's command at both ends, whose processes' own command lines hold a secret of Flower's."""

EXAMPLES = "num-examples"
"""Name of the number by which an update counts, as Flower's strategies expect it."""

SITE_ERRORS: Mapping[type[Exception], tuple[int, str]] = {
    DataError: (1001, "the site's data do not pass its checks"),
    ConfigError: (1002, "the site rejects the config"),
    PolicyError: (1007, "the site's policy denies what the federation requests"),
    FederationError: (1003, "the message breaks what was agreed on"),
    TrainingDiverged: (1004, "a loss became infinite at the site"),
    RunError: (1005, "the site cannot read its state"),
    GansegError: (1006, "the site cannot write"),
}
"""Code and text that the server gets for each kind of error. The text of an exception never leaves the site: it may
hold a path, a name or a value."""
UNKNOWN_ERROR = (1000, "the site failed; its log has the reason")
PROCESS_DIED = (3000, "the site's process died")
"""Of a simulation's grid."""
ERROR_TEXTS: Mapping[int, str] = dict((*SITE_ERRORS.values(), UNKNOWN_ERROR, PROCESS_DIED)) | {
    1: "Flower could not load the site's app; the node's output has the reason",
    2: "the site's app failed; the node's output has the reason",
    3: "the request or its reply is gone: it expired, was not uploaded whole, or the node was removed",
    4: "the reply expired before it was fetched",
    5: "the node has stopped reporting; look at its connection, or restart it there",
    7: "the site's node rejects the bundle; its output has the reason",
    8: "the site's process died; the node's output has the reason",
}
"""The server's text of each code; 1 to 8 are Flower's (`flwr.common.constant.ErrorCode`). Sites send a text too, which
the server neither shows nor stores: the other end could forge lines of a log, or control a terminal."""
SITE_ERROR_CODES = range(1000, 1100)
"""Codes of errors that a site itself sends and explains in its log; other codes are Flower's and the grids'."""
REJECTIONS = frozenset(SITE_ERRORS[kind][0] for kind in (ConfigError, PolicyError))
"""The codes that persist when the server asks again."""

LARGEST_NUMBER = 10**6
"""Of a round, a stage or an epoch."""
LARGEST_COUNT = 10**7
"""Of patients, cases or slices at one site."""
LARGEST_VALUE = 1e15
"""Magnitude of a loss or a score: sums over sites stay finite."""
LONGEST_INSTRUCTION = 2**18
"""Characters of an instruction's JSON, most of which is the config."""

Number = Annotated[StrictInt, Field(ge=0, le=LARGEST_NUMBER)]
Received = tuple[Number, Digest]
"""Round and `egress_manifest.Content.arrays_digest` of an update: a site whose egress manifest lacks it was restored
from a backup."""
Layout = Mapping[str, tuple[npt.DTypeLike, tuple[int, ...]]]
"""Type and shape of each array of a message, by name."""


def kind_of(message_type: str) -> str:
    """The kind, in a site's manifest, of messages of this type."""
    return message_type.rpartition(".")[2]


def describe_error(error: Exception) -> tuple[int, str]:
    """The code and the text that a site sends of an error."""
    if isinstance(error, OtherProtocolError):
        return PROTOCOL_CODES[PROTOCOL], "the site runs another protocol"
    return next((sent for kind, sent in SITE_ERRORS.items() if isinstance(error, kind)), UNKNOWN_ERROR)


def error_text(code: int) -> str:
    """The server's text of an error that a site, its node or Flower sends."""
    if code in PROTOCOL_CODES:
        return protocol_difference(PROTOCOL_CODES.index(code), "the site")
    return ERROR_TEXTS.get(code, UNKNOWN_ERROR[1])


def check_names(
    found: Iterable[str], expected: Collection[str], what: str, remedy: str, needed: Collection[str] | None = None
) -> None:
    """Raises FederationError for a name beyond the expected ones, and where a needed one, by default any, is missing.

    Names that are not expected are counted and not repeated: the other end chose them, and they could carry data.
    """
    names = set(found)
    missing, unknown = set(expected if needed is None else needed) - names, names - set(expected)
    if missing or unknown:
        which = f"lacks {min(missing)}" if missing else f"holds {what} that are not expected ({len(unknown)})"
        raise FederationError(f"message: {which}; {remedy}")


def check_arrays(arrays: Mapping[str, npt.NDArray[Any]], expected: Layout, agreed: str) -> None:
    """Raises FederationError unless a message has exactly these arrays; their values are for the caller to check.

    `agreed` is what must be equal at both ends, for the message.
    """
    remedy = f"both ends must run the same {agreed}"
    check_names(arrays, expected, "arrays", remedy)
    for name, (dtype, shape) in expected.items():
        array = arrays[name]
        if array.dtype != dtype or array.shape != shape:
            found = f"{str(array.dtype)[:20]} {array.shape}"
            raise FederationError(f"{name}: is {found} where {np.dtype(dtype)} {shape} is expected; {remedy}")


@with_config(extra="forbid")
@dataclass(frozen=True, slots=True)
class RoundInstruction:
    """Instruction to train some epochs of a stage, or to score the weights that come with it."""

    run: RunName
    """The federation's name: a site keeps one state for each, in a folder of this name."""
    round: Number
    stage: Number
    first: Number
    """Epoch of the stage at which the round begins."""
    until: Number
    """Epoch of the stage before which it ends."""
    best: bool = False
    """Whether the weights of the round before were the stage's best so far: a site then remembers its networks of
    that round."""
    config: Annotated[str, Field(max_length=LONGEST_INSTRUCTION)] = ""
    """The run's resolved config, as JSON."""
    received: Mapping[SiteName, Received] = field(default_factory=dict)
    """Before the first round, by the receiving site's name: the last update that the server has of it in this run."""
    protocol: Protocol = PROTOCOL
    """Of the server, like the two that follow."""
    version: Version = __version__
    code: CodeDigest = field(default_factory=code_digest)

    def __post_init__(self) -> None:
        """Raises ValueError for a round that ends before it begins."""
        if self.first > self.until:
            raise ValueError("first: is after until")

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> RoundInstruction:
        """The inverse of `to_json`. Raises FederationError for text that is no valid instruction of this protocol."""
        try:
            if len(text) > LONGEST_INSTRUCTION:
                raise ValueError("too long")
            fields = from_json(text, allow_inf_nan=False)  # to a fixed depth, unlike json.loads
            check_protocol(fields, "the server")
            return _validator().validate_python(fields)
        except ValueError:
            raise FederationError("instruction: is not one of this version; both ends must run the same") from None

    @property
    def versions(self) -> Versions:
        """What the server runs."""
        return Versions(protocol=self.protocol, version=self.version, code=self.code)

    @property
    def settings(self) -> RunConfig:
        """The config that both ends train by."""
        return RunConfig.from_json(self.config, "the server's config")


@cache
def _validator() -> TypeAdapter[RoundInstruction]:
    return TypeAdapter(RoundInstruction)


@dataclass(frozen=True, slots=True)
class Scores:
    """A site's numbers beside the weights, under names that the recipe defines."""

    examples: float | None
    """Slices or cases, by `federation.weighting`; None: it withholds its numbers, and counts as it stated."""
    values: Mapping[str, float]
    """Losses of the last epoch after training (`Stage.losses`), validation scores after scoring (`Stage.scores`)."""

    def to_numbers(self) -> dict[str, float]:
        """The numbers of a reply."""
        return {**({} if self.examples is None else {EXAMPLES: self.examples}), **self.values}

    @classmethod
    def from_numbers(cls, numbers: Mapping[str, float]) -> Scores:
        """The inverse of `to_numbers`."""
        return cls(numbers.get(EXAMPLES), {name: value for name, value in numbers.items() if name != EXAMPLES})


NO_SCORES = Scores(None, {})
"""Sent by a site that withholds its numbers."""

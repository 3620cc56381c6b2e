r"""The egress manifest: one line for each message that left a hospital, chained by hashes.

A line is a JSON object in canonical form (keys sorted, no spaces, ASCII, neither NaN nor infinity) and a line feed:

bytes     of all tensors together
hash      sha256 of this line without its `"hash":"...",` and without its line feed
kind      of message: a `Kind`
metrics   names and numbers
noise_multiplier
          of an update to which the hospital added noise (differential privacy): z; else null
previous  sha256 of the line before without its line feed; 64 zeros in the first line
round     of the federation; 0 before its first
run       the federation's name
tensors   of each: name, dtype, shape, bytes, and sha256 of its values as sent, in C order
time      UTC, ISO 8601

So it can be verified without this program: `sed -n 4p FILE | tr -d '\n' | sha256sum` is line 5's `previous`,
and the same after `sed 's/"hash":"[0-9a-f]*",//'` is line 4's `hash`.

The chain reveals lines that were altered, removed, inserted or reordered. It cannot reveal that whole lines are missing
at its end, nor that someone with write access rewrote the whole file: against that, note the head, which is the last
line's `hash`, where the file's writers cannot reach it, and compare.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, BinaryIO, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ganseg_dist.errors import FederationError
from ganseg_dist.names import ArrayName, RunName
from ganseg_dist.records import first_problem

Kind = Literal["train", "evaluate", "preflight", "fingerprint", "error", "finish"]
START = "0" * 64
"""`previous` of the first line, and the head of a manifest without lines."""

NUMBERS = "biuf"
"""Allowed `dtype.kind` of a tensor: booleans, integers and floats."""
BLOCK = 2**20
"""Bytes read at a time from a file's end."""

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Size = Annotated[int, Field(ge=0)]


class Fields(BaseModel):
    """Base of a line's parts: immutable, strictly validated, without other fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Tensor(Fields):
    """Record of a tensor: enough to recognise it, too little to reconstruct it."""

    name: ArrayName
    dtype: str = Field(pattern=r"^[a-z0-9<>]{1,12}$")
    shape: tuple[Size, ...]
    bytes: Size
    sha256: Digest


class Content(Fields):
    """Record of one message's content."""

    kind: Kind
    run: RunName
    round: Size
    tensors: tuple[Tensor, ...]
    metrics: Mapping[ArrayName, int | float]
    bytes: Size
    noise_multiplier: Annotated[float, Field(gt=0)] | None = None
    """z of an update to which the site added noise, by which its budget is counted; None for every other message."""

    @classmethod
    def of(
        cls,
        kind: str,
        run: str,
        round: int,
        arrays: Mapping[str, npt.NDArray[Any]],
        metrics: Mapping[str, float],
        noise_multiplier: float | None = None,
    ) -> Content:
        """Record of a message about to be sent, with its arrays as encoded.

        Raises FederationError naming what must not leave: an array or a metric that is not numeric, NaN for a metric,
        a path for a name.
        """
        try:
            return cls.model_validate(
                {
                    "kind": kind,
                    "run": run,
                    "round": round,
                    "tensors": tuple(_tensor_fields(name, array) for name, array in arrays.items()),
                    "metrics": {name: _number(name, value) for name, value in metrics.items()},
                    "bytes": sum(array.nbytes for array in arrays.values()),
                    "noise_multiplier": noise_multiplier,
                }
            )
        except ValidationError as error:
            raise FederationError(f"a message cannot leave: {first_problem(error)}") from None

    @property
    def arrays_digest(self) -> str:
        """sha256 of the tensors' names and hashes: the same of a message at both of its ends, in any order."""
        return digest(canonical({tensor.name: tensor.sha256 for tensor in self.tensors}))

    @model_validator(mode="after")
    def _sum(self) -> Self:
        if self.bytes != sum(tensor.bytes for tensor in self.tensors):
            raise ValueError("bytes is not the sum of the tensors' bytes")
        return self


class Entry(Content):
    """A line of the manifest."""

    time: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z$")
    previous: Digest
    hash: Digest


def seal(content: Content, previous: str) -> Entry:
    """The entry of a message that is sent now; `previous` is the `digest` of the line before, or START."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").removesuffix("+00:00")
    fields = {**content.model_dump(), "time": f"{now}Z", "previous": previous}
    return Entry.model_validate({**fields, "hash": digest(canonical(fields))})


def canonical(value: Mapping[str, Any]) -> bytes:
    """Canonical JSON: equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def digest(data: bytes) -> str:
    """Hexadecimal sha256."""
    return hashlib.sha256(data).hexdigest()


def to_line(entry: Entry) -> bytes:
    """The entry's line without its line feed."""
    return canonical(entry.model_dump())


def read(line: bytes) -> Entry:
    """Parse a line without verifying its hash. Raises ValueError naming what is wrong with it."""
    try:
        return Entry.model_validate_json(line)
    except ValidationError as error:
        raise ValueError(first_problem(error)) from None


def is_intact(entry: Entry, line: bytes) -> bool:
    """Whether a line, given without its line feed, is byte for byte as `seal` made it."""
    return line == to_line(entry) and entry.hash == digest(canonical(entry.model_dump(exclude={"hash"})))


def is_unfinished(line: bytes) -> bool:
    """Whether a file's last line was left half written by a power cut, and not altered.

    Such a line is no JSON, and it has no line feed, or zeros where its bytes never reached the disk.
    """
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return not line.endswith(b"\n") or b"\0" in line
    return False


def last_line(file: BinaryIO) -> tuple[int, bytes]:
    """Offset and bytes of the last line; reads little more than that from the file's end."""
    start, tail = file.seek(0, os.SEEK_END), b""
    while start > 0:
        size = min(BLOCK, start)
        start -= size
        file.seek(start)
        tail = file.read(size) + tail
        before = tail.rfind(b"\n", 0, -1)
        if before >= 0:
            return start + before + 1, tail[before + 1 :]
    return 0, tail


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault at a line, counted from 1, or at 0 for a manifest without lines."""

    line: int
    kind: Literal["altered", "removed", "inserted", "reordered", "unfinished", "head", "empty"]
    """`verify` never returns `empty`: the caller knows whether messages should have left."""
    problem: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """Result of `verify`."""

    lines: int
    entries: int
    """Lines that parse as entries, altered or not."""
    head: str
    """The hash of the last intact line."""
    faults: tuple[Fault, ...]


@dataclass(frozen=True, slots=True)
class Link:
    """A line's place in the chain."""

    digest: str
    """Digest of the line as it stands."""
    entry: bool
    """Whether it parses as an entry."""
    previous: str | None
    """The line's `previous`; None, as is `hash`, for a line that is not intact."""
    hash: str | None


def verify(lines: Iterable[bytes], each: Callable[[Entry], None], head: str | None = None) -> Verdict:
    """Check the chain of lines, with their line feeds; `each` receives the intact entries.

    `head` is the hash that the last line must have.
    """
    links: list[Link] = []
    faults: list[Fault] = []
    line = b""
    for number, line in enumerate(lines, start=1):
        link, problem = _read_link(line, each)
        links.append(link)
        if problem is not None:
            faults.append(Fault(number, "altered", f"altered: {problem}"))
    if links and is_unfinished(line):
        faults[-1] = Fault(len(links), "unfinished", _HALF)
    faults += _broken_links(links)
    whole = [link.hash for link in links if link.hash is not None]
    last = whole[-1] if whole else START
    if head is not None and head != last:
        faults.append(Fault(len(links), "head", _wrong_head(head, links)))
    entries = sum(link.entry for link in links)
    return Verdict(len(links), entries, last, tuple(sorted(faults, key=lambda fault: fault.line)))


_HALF = (
    "half written by a power cut, not altered: its message was not sent; the hospital's next message moves it into "
    "another file. A line cut short by hand is no different: compare the head with one noted elsewhere"
)


def _read_link(line: bytes, each: Callable[[Entry], None]) -> tuple[Link, str | None]:
    """A line's place in the chain, and the line's problem, if any."""
    text = line.removesuffix(b"\n")
    try:
        entry = read(text)
    except ValueError as error:
        return Link(digest(text), False, None, None), f"it is no entry ({error})"
    if not is_intact(entry, text):
        return Link(digest(text), True, None, None), "its hash is not that of its content"
    each(entry)
    return Link(digest(text), True, entry.previous, entry.hash), None


def _broken_links(links: list[Link]) -> list[Fault]:
    """A fault for each intact line that does not follow the line before it."""
    place = {START: 0} | {link.digest: number for number, link in enumerate(links, start=1)}
    follows = [None if link.previous is None else place.get(link.previous) for link in links]
    # If lines were only removed or inserted, each line still comes after the one it follows.
    reordered = any(
        predecessor is not None and predecessor > number for number, predecessor in enumerate(follows, start=1)
    )
    faults = []
    for number, link in enumerate(links, start=1):
        before = links[number - 2] if number > 1 else None
        if link.previous is None or link.previous == (before.digest if before else START):
            continue
        predecessor = follows[number - 1]
        if predecessor is None:
            if before is None or before.previous is not None:  # behind an altered line, only that line is at fault
                faults.append(Fault(number, "removed", _removed(number)))
        elif reordered:
            faults.append(Fault(number, "reordered", f"reordered: {_belongs(predecessor)}"))
        else:
            faults.append(Fault(number, "inserted", _inserted(predecessor, number)))
    return faults


def _removed(number: int) -> str:
    if number == 1:
        return "removed: it is not the first line; those before it are gone"
    return f"removed: the line it follows is gone; lines were removed before it, or line {number - 1} took their place"


def _inserted(predecessor: int, number: int) -> str:
    between = f"line {number - 1} was" if predecessor == number - 2 else f"lines {predecessor + 1} to {number - 1} were"
    return f"inserted: {_belongs(predecessor)}; {between} put in before it"


def _belongs(predecessor: int) -> str:
    return f"it belongs after line {predecessor}" if predecessor else "it belongs first"


def _wrong_head(head: str, links: list[Link]) -> str:
    earlier = next((number for number, link in enumerate(links, start=1) if link.hash == head), None)
    if earlier is not None:
        return f"head: the hash given is that of line {earlier}, and more lines came after it"
    return "head: no line has the hash given; lines were cut off the end, or the file was rewritten"


def _tensor_fields(name: str, array: npt.NDArray[Any]) -> dict[str, Any]:
    """Fields of an array's `Tensor`. Raises FederationError when its values are no numbers."""
    if array.dtype.kind not in NUMBERS:
        raise FederationError(f"{name}: is of {array.dtype}; only numbers leave a hospital")
    values = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    sha256 = hashlib.sha256(values.data).hexdigest()
    return {"name": name, "dtype": str(array.dtype), "shape": array.shape, "bytes": array.nbytes, "sha256": sha256}


def _number(name: str, value: Any) -> int | float:
    """The metric as a Python number. Raises FederationError unless it is finite."""
    plain = value.item() if isinstance(value, np.generic) else value
    if isinstance(plain, bool) or not isinstance(plain, int | float) or not math.isfinite(plain):
        raise FederationError(f"{name}: is not a finite number; of metrics only finite numbers leave a hospital")
    return plain

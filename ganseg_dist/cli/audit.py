"""`ganseg audit`: what left a hospital, and whether the record of it is whole."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ganseg_dist.cli import show

if TYPE_CHECKING:
    from ganseg_dist.federation.manifest import Entry, Verdict

HASH = re.compile("[0-9a-f]{64}")


def audit(
    file: Path = typer.Argument(metavar="FILE", help="A hospital's egress manifest, such as egress.jsonl."),
    head: str | None = typer.Option(
        None,
        metavar="HASH",
        help="The last line's hash, as an earlier audit printed it and somebody noted it elsewhere: lines cut off the "
        "end, or a file written anew, show in no other way.",
    ),
    as_json: bool = typer.Option(False, "--json", help="Summary and faults as JSON on stdout."),
) -> None:
    """Verify a hospital's record of what left it, and sum it up.

    Every line seals the one before it, so lines that were altered, removed, inserted or reordered are told by their
    number; so is a last line that a power cut left half written, which is no tampering. Whole lines cut off the end
    show only with --head.

    Exit code 1 when a line is not as it was written; 2 when the file cannot be read.
    """
    summary = Summary()
    verdict = _verified(file, summary, head)
    if as_json:
        told = {
            "file": str(file),
            "lines": verdict.lines,
            "head": verdict.head,
            "faults": [asdict(fault) for fault in verdict.faults],
            "summary": None if verdict.faults else summary.to_dict(),
        }
        typer.echo(json.dumps(told, indent=1))
    elif verdict.faults:
        for fault in verdict.faults:
            typer.echo(f"error: line {fault.line}: {fault.problem}")
        typer.echo(f"{file}: {verdict.lines} lines, {len(verdict.faults)} faults")
    else:
        typer.echo(f"{file}: {verdict.lines} messages, an unbroken chain")
        for label, value in (*summary.rows(), ("head", verdict.head)):
            typer.echo(f"{label}: {value}")
        if head is None:
            show.err.print(
                "note: keep the head elsewhere; given as --head later, it shows whether lines were cut off the end"
            )
    if verdict.faults:
        raise typer.Exit(1)


def _verified(file: Path, summary: Summary, head: str | None) -> Verdict:
    """Raises ConfigError for a file that is no manifest and for a --head that is no hash."""
    from ganseg_dist.errors import ConfigError
    from ganseg_dist.federation.manifest import verify

    if head is not None and not HASH.fullmatch(head):
        raise ConfigError("--head: is no hash; give the 64 characters that ganseg audit prints as head")
    try:
        with file.open("rb") as lines:
            verdict = verify(lines, summary.add, head)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({error.strerror or error}); check the path") from None
    half = any(fault.kind == "unfinished" for fault in verdict.faults)
    if verdict.lines and not verdict.entries and not half:
        raise ConfigError(f"{file}: is no egress manifest; give the file that a hospital's client writes")
    return verdict


@dataclass(slots=True)
class Summary:
    """What left, counted."""

    kinds: Counter[str] = field(default_factory=Counter)
    rounds: defaultdict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    """By run."""
    first: str | None = None
    last: str | None = None
    bytes: int = 0
    tensors: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """How often each was sent, by network."""
    metrics: set[str] = field(default_factory=set)

    def add(self, entry: Entry) -> None:
        """Count one message."""
        self.kinds[entry.kind] += 1
        self.rounds[entry.run].add(entry.round)
        self.first = self.first or entry.time
        self.last = entry.time
        self.bytes += entry.bytes
        for tensor in entry.tensors:
            network, name = _network_and_name(tensor.name)
            self.tensors[network][name] += 1
        self.metrics |= entry.metrics.keys()

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "messages": dict(self.kinds),
            "rounds": {run: sorted(rounds) for run, rounds in self.rounds.items()},
            "first": self.first,
            "last": self.last,
            "bytes": self.bytes,
            "tensors": {network: dict(counts) for network, counts in self.tensors.items()},
            "metrics": sorted(self.metrics),
        }

    def rows(self) -> list[tuple[str, str]]:
        """For a person; nothing of what never left."""
        if self.first is None:
            return []
        return [
            ("messages", ", ".join(f"{count} {kind}" for kind, count in self.kinds.most_common())),
            *((f"rounds of {run}", _ranges(rounds)) for run, rounds in self.rounds.items()),
            ("time", f"{self.first} to {self.last}"),
            ("bytes in tensors", f"{self.bytes:,}"),
            *((f"tensors of {network}", _by_count(counts)) for network, counts in self.tensors.items()),
            ("metrics", ", ".join(sorted(self.metrics)) or "none"),
        ]


def _network_and_name(tensor: str) -> tuple[str, str]:
    """`networks.segmenter.encoder.0.weight` is `encoder.0.weight` of `networks.segmenter`."""
    parts = tensor.split(".", maxsplit=2)
    return (f"{parts[0]}.{parts[1]}", parts[2]) if len(parts) == 3 else ("no network", tensor)


def _by_count(counts: Counter[str]) -> str:
    """Names that were sent equally often, together."""
    names = defaultdict(list)
    for name, count in counts.items():
        names[count].append(name)
    told = (
        f"{len(some)} sent {count} times ({', '.join(some)})" for count, some in sorted(names.items(), reverse=True)
    )
    return "; ".join(told)


def _ranges(numbers: Iterable[int]) -> str:
    """Whole numbers in order, neighbours as first-last."""
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and ranges[-1][-1] == number - 1:
            ranges[-1] = [ranges[-1][0], number]
        else:
            ranges.append([number])
    return ", ".join("-".join(map(str, ends)) for ends in ranges)

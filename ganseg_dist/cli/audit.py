"""`ganseg audit`: what left a hospital, and whether its record is intact."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ganseg_dist.cli import show
from ganseg_dist.errors import ConfigError
from ganseg_dist.plural import counted

if TYPE_CHECKING:
    from ganseg_dist.federation.egress_manifest import Entry, Verdict

HASH = re.compile("[0-9a-f]{64}")

MOST_FAULTS = 20
"""Largest number of faults printed; --json has all."""
MOST_NAMED = 6
"""Largest number of metrics of a kind of message that are listed by name without --verbose."""

EMPTY = "empty: nothing has left yet, or the file was emptied; --head shows which: 64 zeros while nothing has left"

STEPS = {
    "preflight": "joining",
    "fingerprint": "fingerprint",
    "train": "training",
    "evaluate": "validation",
    "finish": "end",
    "error": "errors",
}
"""Name of each kind of message, in the order of a federation's steps."""
NO_NETWORK = "no network"
DESCRIPTION = "description"
"""Name of the tensor with a joining site's names (`ganseg_dist.federation.site_info`)."""


def audit(
    file: Path = typer.Argument(metavar="FILE", help="A hospital's egress manifest, such as egress.jsonl."),
    head: str | None = typer.Option(
        None,
        metavar="HASH",
        help="The last line's hash, as an earlier audit printed it, noted elsewhere: lines cut off the "
        "end, or a rewritten file, show in no other way. 64 zeros: nothing had left.",
    ),
    verbose: bool = typer.Option(False, "--verbose", "-v", help="Every tensor and number by its name."),
    as_json: bool = typer.Option(False, "--json", help="Summary and all faults as JSON on stdout."),
) -> None:
    """Verify a hospital's record of what left it, and sum it up.

    Every line seals the one before it, so lines that were altered, removed, inserted or reordered are reported by
    number; so is a last line that a power cut left half written, which is no tampering. Whole lines cut off the end
    show only with --head.

    Exit code 0 when all lines are as they were written; 1 when one is not, and when there are none: an emptied file
    equals one before its first message, and gives 0 only where --head is 64 zeros, as nothing had left; 2
    when the file cannot be read or is no such record.
    """
    summary = EgressCounts()
    verdict = _verify_manifest(file, summary, head)
    if as_json:
        report = {
            "file": str(file),
            "lines": verdict.lines,
            "head": verdict.head,
            "faults": [asdict(fault) for fault in verdict.faults],
            "summary": None if verdict.faults else summary.to_dict(),
        }
        show.echo_json(report)
    elif verdict.faults:
        for line in _describe_faults(verdict):
            show.echo(line)
        show.echo(f"{file}: {counted(verdict.lines, 'line')}, {counted(len(verdict.faults), 'fault')}")
    else:
        show.echo(f"{file}: {counted(verdict.lines, 'message')}, an unbroken chain")
        for label, value in (*summary.rows(verbose=verbose), ("head", verdict.head)):
            show.echo(f"{label}: {value}")
        if head is None:
            show.err.print(
                "note: keep the head elsewhere; given as --head later, it shows whether lines were cut off the end"
            )
    if verdict.faults:
        raise typer.Exit(1)


def _verify_manifest(file: Path, summary: EgressCounts, head: str | None) -> Verdict:
    """Verify the file, adding entries to summary. Raises ConfigError for no manifest, or a --head that is no hash."""
    from ganseg_dist.federation.egress_manifest import Fault, verify
    from ganseg_dist.files import open_regular

    if head is not None and not HASH.fullmatch(head):
        raise ConfigError("--head: is no hash; give the 64 characters that ganseg audit prints as head")
    try:
        with open_regular(file) as lines:
            verdict = verify(lines, summary.add, head)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({error.strerror or error}); check the path") from None
    if not verdict.lines and head is None:
        return replace(verdict, faults=(Fault(0, "empty", EMPTY),))
    half_of_the_first = verdict.lines == 1 and verdict.faults and verdict.faults[0].kind == "unfinished"
    if verdict.lines and not verdict.entries and not half_of_the_first:
        raise ConfigError(f"{file}: is no egress manifest; give the file that a hospital's client writes")
    return verdict


def _describe_faults(verdict: Verdict) -> Iterator[str]:
    """A line per fault, at most `MOST_FAULTS`; a fault without a line number is one of the whole file."""
    for fault in verdict.faults[:MOST_FAULTS]:
        place = f"line {fault.line}: " if fault.line else ""
        yield f"error: {place}{fault.problem}"
    if len(verdict.faults) > MOST_FAULTS:
        yield f"and {len(verdict.faults) - MOST_FAULTS} more; --json has all"


@dataclass(slots=True)
class KindCounts:
    """Content of the messages of one kind."""

    messages: int = 0
    rounds: set[int] = field(default_factory=set)
    """0 is before the first round."""
    tensors: Counter[str] = field(default_factory=Counter)
    """How often each tensor was sent."""
    metrics: set[str] = field(default_factory=set)

    def add(self, entry: Entry) -> None:
        """Count one message."""
        self.messages += 1
        self.rounds.add(entry.round)
        self.tensors.update(tensor.name for tensor in entry.tensors)
        self.metrics |= entry.metrics.keys()


@dataclass(slots=True)
class EgressCounts:
    """Counts of what left."""

    sent: defaultdict[str, defaultdict[str, KindCounts]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(KindCounts))
    )
    """By run and kind of message."""
    first: str | None = None
    last: str | None = None
    bytes: int = 0

    def add(self, entry: Entry) -> None:
        """Count one message."""
        self.sent[entry.run][entry.kind].add(entry)
        self.first = self.first or entry.time
        self.last = entry.time
        self.bytes += entry.bytes

    def to_dict(self) -> dict[str, Any]:
        """The counts of all runs together, for JSON."""
        messages, tensors, metrics = Counter[str](), Counter[str](), set[str]()
        for kinds in self.sent.values():
            for kind, sent in kinds.items():
                messages[kind] += sent.messages
                tensors += sent.tensors
                metrics |= sent.metrics
        return {
            "messages": dict(messages),
            "rounds": {
                run: sorted(set().union(*(sent.rounds for sent in kinds.values()))) for run, kinds in self.sent.items()
            },
            "first": self.first,
            "last": self.last,
            "bytes": self.bytes,
            "tensors": {network: dict(counts) for network, counts in _by_network(tensors).items()},
            "metrics": sorted(metrics),
        }

    def rows(self, *, verbose: bool) -> list[tuple[str, str]]:
        """Labels and texts for a terminal, a row per kind of message that was sent; empty if nothing left."""
        if self.first is None:
            return []
        rows = []
        for run, kinds in self.sent.items():
            rows.append(("federation", run))
            for kind, step in STEPS.items():
                if kind in kinds:
                    sent = kinds[kind]
                    description = "; ".join(_describe_messages(kind, sent, verbose=verbose)) or "nothing in it"
                    label = f"{step} ({_describe_rounds(sent.rounds)})"
                    rows.append((label, f"{counted(sent.messages, 'message')}: {description}"))
        return [*rows, ("time", f"{self.first} to {self.last}"), ("bytes in tensors", f"{self.bytes:,}")]


def _describe_messages(kind: str, sent: KindCounts, *, verbose: bool) -> Iterator[str]:
    """Texts on the metrics and tensors in messages of one kind; tensors unusual for the kind are listed by name."""
    losses = {name for name in sent.metrics if kind == "train" and "/" in name}  # stage/phase/term
    for names, noun, nouns in ((losses, "loss", "losses and their weights"), (sent.metrics - losses, "number", None)):
        if names:
            listed = f" ({', '.join(sorted(names))})" if verbose or len(names) <= MOST_NAMED else ""
            yield f"{counted(len(names), noun, nouns)}{listed}"
    networks = _by_network(sent.tensors)
    other_tensors = networks.pop(NO_NETWORK, Counter())
    if kind == "preflight" and other_tensors.pop(DESCRIPTION, 0):
        yield "names of the site, its channels, regions and classes"
    if other_tensors:
        noun = "histogram" if kind == "fingerprint" else "other tensor"
        yield _describe_tensors(other_tensors, noun, verbose=verbose or kind != "fingerprint")
    for network, counts in networks.items():
        yield f"{network}: {_describe_tensors(counts, 'tensor', verbose=verbose)}"


def _describe_tensors(counts: Counter[str], noun: str, *, verbose: bool) -> str:
    """Such as `36 tensors sent twice`; tensors that were sent equally often are counted together."""
    names_by_count = defaultdict(list)
    for name, count in counts.items():
        names_by_count[count].append(name)
    parts = []
    for count, names in sorted(names_by_count.items(), reverse=True):
        listed = f" ({', '.join(names)})" if verbose else ""
        parts.append(f"{counted(len(names), noun)} sent {_times(count)}{listed}")
    return ", ".join(parts)


def _by_network(tensors: Counter[str]) -> dict[str, Counter[str]]:
    """Split names: `networks.segmenter.encoder.0.weight` is `encoder.0.weight` of `networks.segmenter`."""
    networks: dict[str, Counter[str]] = {}
    for tensor, count in tensors.items():
        parts = tensor.split(".", maxsplit=2)
        network, name = (f"{parts[0]}.{parts[1]}", parts[2]) if len(parts) == 3 else (NO_NETWORK, tensor)
        networks.setdefault(network, Counter())[name] = count
    return networks


def _describe_rounds(rounds: set[int]) -> str:
    """Such as `before the first round`, `round 3` or `rounds 1-4, 6`."""
    later = sorted(rounds - {0})
    parts = ["before the first round"] if 0 in rounds else []
    if later:
        parts.append(f"{'round' if len(later) == 1 else 'rounds'} {_ranges(later)}")
    return " and ".join(parts)


def _ranges(numbers: Iterable[int]) -> str:
    """Whole numbers in order, consecutive ones as first-last."""
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and ranges[-1][-1] == number - 1:
            ranges[-1] = [ranges[-1][0], number]
        else:
            ranges.append([number])
    return ", ".join("-".join(map(str, ends)) for ends in ranges)


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")

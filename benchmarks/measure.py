"""How every benchmark measures and reports: two ways of doing the same work take turns, and the ratio is what counts.

A machine's speed drifts with its load; a pair of neighbouring measurements sees the same machine.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import torch


@dataclass(frozen=True, slots=True)
class Comparison:
    """Ours against another. Above 1 ours is the faster, or the better."""

    what: str
    ratio: float
    low: float
    high: float
    """The spread: smallest and largest ratio of any pair of repetitions."""
    ours: str
    other: str
    """What each measured, with its unit."""
    repeats: int
    note: str = ""

    def line(self) -> str:
        """For a person."""
        spread = f" ({self.low:.3f} to {self.high:.3f} over {self.repeats})" if self.repeats > 1 else ""
        note = f"; {self.note}" if self.note else ""
        return f"{self.what}: ratio {self.ratio:.3f}{spread}, {self.ours} against {self.other}{note}"


def side_by_side(
    ours: Callable[[], float], other: Callable[[], float], repeats: int, *, warm_ups: int = 1
) -> tuple[list[float], list[float]]:
    """Seconds of each, measured A B A B; each returns the seconds it took. The warm-up pairs are dropped."""
    pairs = [(ours(), other()) for _ in range(warm_ups + repeats)][warm_ups:]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def compare_seconds(
    what: str, ours: Sequence[float], other: Sequence[float], *, amount: float = 1.0, unit: str = "s", note: str = ""
) -> Comparison:
    """The ratio of median times, with each side shown in seconds, or as `amount` units of work a second."""
    pairs = [theirs / mine for mine, theirs in zip(ours, other, strict=True)]

    def shown(seconds: Sequence[float]) -> str:
        rate = amount / median(seconds)
        return f"{median(seconds):.2f} s" if unit == "s" else f"{rate:.{1 if rate >= 10 else 3}f} {unit}/s"

    ratio = median(other) / median(ours)
    return Comparison(what, ratio, min(pairs), max(pairs), shown(ours), shown(other), len(pairs), note)


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Wall seconds, with the device's queue empty at both ends."""
    _finish(device)
    start = time.perf_counter()
    work()
    _finish(device)
    return time.perf_counter() - start


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Every benchmark's options; each adds its own."""
    options = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true", help="seconds only: shows that it runs, measures nothing")
    options.add_argument("--json", type=Path, metavar="FILE", help="write the comparisons there too")
    return options


def report(comparisons: Sequence[Comparison], options: argparse.Namespace) -> None:
    """Print, and write JSON where asked."""
    for comparison in comparisons:
        print(comparison.line(), flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(comparison) for comparison in comparisons], indent=1))


def machine(device: torch.device) -> str:
    """What it was measured on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} CPU"
    return f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

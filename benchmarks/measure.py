"""Measuring and reporting for all benchmarks: two ways of doing the same work take turns, and their ratio is reported.

A machine's speed drifts with its load; two consecutive measurements share the same conditions.
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
    """Ours against another. A ratio above 1 means that ours is faster, or better."""

    what: str
    ratio: float
    low: float
    high: float
    """The spread: smallest and largest ratio of any pair of repetitions."""
    ours: str
    other: str
    """The measured values with their units."""
    repeats: int
    note: str = ""

    def line(self) -> str:
        """The comparison as one line of text."""
        spread = f" ({self.low:.3f} to {self.high:.3f} over {self.repeats})" if self.repeats > 1 else ""
        note = f"; {self.note}" if self.note else ""
        return f"{self.what}: ratio {self.ratio:.3f}{spread}, {self.ours} against {self.other}{note}"


def side_by_side(
    ours: Callable[[], float], other: Callable[[], float], repeats: int, *, warm_ups: int = 1
) -> tuple[list[float], list[float]]:
    """Seconds of each, measured in the order A B A B; each function returns its seconds. Warm-up pairs are dropped."""
    pairs = [(ours(), other()) for _ in range(warm_ups + repeats)][warm_ups:]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def compare_seconds(
    what: str, ours: Sequence[float], other: Sequence[float], *, amount: float = 1.0, unit: str = "s", note: str = ""
) -> Comparison:
    """The ratio of median times; each side's text is in seconds, or in `amount` units of work per second."""
    pairs = [b / a for a, b in zip(ours, other, strict=True)]

    def text(seconds: Sequence[float]) -> str:
        rate = amount / median(seconds)
        return f"{median(seconds):.2f} s" if unit == "s" else f"{rate:.{1 if rate >= 10 else 3}f} {unit}/s"

    ratio = median(other) / median(ours)
    return Comparison(what, ratio, min(pairs), max(pairs), text(ours), text(other), len(pairs), note)


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Wall seconds of the work, including all that it queues on the device."""
    _finish(device)
    start = time.perf_counter()
    work()
    _finish(device)
    return time.perf_counter() - start


def parser(doc: str | None) -> argparse.ArgumentParser:
    """The options that all benchmarks share; each adds its own."""
    options = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true", help="seconds only: shows that it runs, measures nothing")
    options.add_argument("--json", type=Path, metavar="FILE", help="write the comparisons there too")
    return options


def report(comparisons: Sequence[Comparison], options: argparse.Namespace) -> None:
    """Print the comparisons, and write them as JSON if `options.json` is set."""
    for comparison in comparisons:
        print(comparison.line(), flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(comparison) for comparison in comparisons], indent=1))


def machine(device: torch.device) -> str:
    """The device, its threads and torch's version."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} CPU"
    return f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

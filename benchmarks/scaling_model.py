"""Duration of a training step with n workers, modelled from measurements of its parts.

    t(n) = compute(b / n) + sum of allreduce(n, s) + reading(b / n)             the worker reads
    t(n) = max(compute(b / n) + sum of allreduce(n, s), reading(b / n) / l)     l loader processes per worker read

b is the batch that all workers share, s the gradient of a network in bytes: the engine sends one message a phase
and network when the backward pass is over, and none of it overlaps (docs/decisions/0001). An allreduce sends
2 (n - 1) / n of the message over each worker's link in 2 log2 n rounds: Rabenseifner's algorithm, as described by
Thakur, Rabenseifner and Gropp ("Optimization of collective communication operations in MPICH", 2005), without the
cost of adding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Link:
    """The network between workers."""

    bandwidth: float
    """Bytes per second that one worker sends."""
    latency: float
    """Seconds per round."""

    def allreduce(self, workers: int, size: float) -> float:
        """Seconds in which `size` bytes of every worker become their sum."""
        if workers == 1:
            return 0.0
        rounds = 2 * math.ceil(math.log2(workers))
        return 2 * (workers - 1) / workers * size / self.bandwidth + rounds * self.latency


@dataclass(frozen=True, slots=True)
class Compute:
    """One worker's forward, backward and update."""

    per_example: float
    """Seconds per example."""
    fixed: float = 0.0
    """Seconds per step, independent of its examples."""
    floor: float = 0.0
    """Least seconds of a step: a GPU waits for Python, which launches one operator after the other."""

    def seconds(self, examples: float) -> float:
        """Seconds of a step over `examples` examples."""
        return max(self.floor, self.fixed + self.per_example * examples)


@dataclass(frozen=True, slots=True)
class Step:
    """A training step on a kind of machine."""

    compute: Compute
    messages: tuple[float, ...]
    """Bytes of the gradients that a step averages, one per network."""
    link: Link
    reading: float
    """Examples per second that a process reads."""
    loaders: int = 0
    """Loader processes per worker; 0: the worker itself reads."""

    def parts(self, workers: int, batch: float) -> dict[str, float]:
        """Seconds of each part, for a batch that all workers share."""
        share = batch / workers
        return {
            "compute": self.compute.seconds(share),
            "network": sum(self.link.allreduce(workers, message) for message in self.messages),
            "reading": share / self.reading / max(1, self.loaders),
        }

    def seconds(self, workers: int, batch: float) -> float:
        """Seconds of a step."""
        parts = self.parts(workers, batch)
        training = parts["compute"] + parts["network"]
        return max(training, parts["reading"]) if self.loaders else training + parts["reading"]

    def speedup(self, workers: int, batch: float, *, weak: bool = False) -> float:
        """Examples per second relative to one worker.

        Args:
            batch: shared by all workers, as `train.batch_size` is; of each worker where `weak`.
        """
        of_all = batch * workers if weak else batch
        return of_all / self.seconds(workers, of_all) / (batch / self.seconds(1, batch))

    def limit(self, workers: int, batch: float) -> str:
        """The longest part of a step: `compute`, `network`, `reading`, or `floor` where a share is too small."""
        parts = self.parts(workers, batch)
        longest = max(parts, key=parts.__getitem__)
        at_floor = longest == "compute" and parts["compute"] == self.compute.floor > 0
        return "floor" if at_floor else longest


def fitted_line(points: Mapping[float, float]) -> tuple[float, float]:
    """Intercept and slope of seconds over size, by least squares of the relative error.

    Small sizes thus count as much as large ones. The intercept is at least 0, as no time is negative.
    """
    x, y = np.array([*points], np.float64), np.array([*points.values()], np.float64)
    slope, intercept = np.polyfit(x, y, 1, w=1 / y)
    if intercept >= 0:
        return float(intercept), float(slope)
    return 0.0, float((x / y).sum() / ((x / y) ** 2).sum())

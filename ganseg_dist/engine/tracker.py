"""What training reports. The engine always reports; the default tracker ignores it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Progress:
    """How far training has come."""

    stage: str
    epoch: int
    epochs: int
    batch: int
    batches: int
    scores: Mapping[str, float]
    """The last validated epoch's scores."""
    unit: str = "batch"
    """What is counted: `batch`, or in a federation's round a `site` that has answered."""
    note: str = ""
    """Such as the sites that a round waits for."""


class Tracker:
    """Receives rank 0's reports, and here ignores them. It may not fail training: a subclass logs its errors."""

    def progress(self, progress: Progress) -> None:
        """Called often; must return at once."""

    def steps(self, first_step: int, values: Mapping[str, list[float]]) -> None:
        """Per-step losses and weights by name, for the steps from `first_step` on; NaN where a phase did not step."""

    def epoch(self, step: int, scores: Mapping[str, float]) -> None:
        """Scores of a finished epoch, as `stage/score`."""

    def examples(
        self, step: int, stage: str, pictures: Mapping[str, npt.NDArray[Any]], sides_known: npt.NDArray[np.bool_]
    ) -> None:
        """A few validation examples: image, regions and the system's prediction, (B, C, H, W) each.

        `sides_known`: (B,) whether the example's columns run from the patient's left to right.
        """

    def warn(self, step: int, warning: str) -> None:
        """A warning for the user, in one line."""

    def close(self) -> None:
        """Send what is still queued; called by the tracker's creator."""


class Trackers(Tracker):
    """Several trackers as one."""

    def __init__(self, *trackers: Tracker) -> None:
        self.trackers = trackers

    def progress(self, progress: Progress) -> None:
        for tracker in self.trackers:
            tracker.progress(progress)

    def steps(self, first_step: int, values: Mapping[str, list[float]]) -> None:
        for tracker in self.trackers:
            tracker.steps(first_step, values)

    def epoch(self, step: int, scores: Mapping[str, float]) -> None:
        for tracker in self.trackers:
            tracker.epoch(step, scores)

    def examples(
        self, step: int, stage: str, pictures: Mapping[str, npt.NDArray[Any]], sides_known: npt.NDArray[np.bool_]
    ) -> None:
        for tracker in self.trackers:
            tracker.examples(step, stage, pictures, sides_known)

    def warn(self, step: int, warning: str) -> None:
        for tracker in self.trackers:
            tracker.warn(step, warning)

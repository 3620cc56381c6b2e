"""What a sweep has come to: its trials, and which is the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ganseg_dist.errors import RunError
from ganseg_dist.runs import Run
from ganseg_dist.sweeps.metric import Metric

Ending = Literal["finished", "stopped", "diverged", "failed"]


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """What a trial came to."""

    name: str
    """Of its run."""
    values: Mapping[str, Any]
    """Of the space's fields, at its end."""
    scores: Mapping[str, float]
    """By metric; one is missing where the trial did not come so far."""
    epochs: int
    """Of the last stage."""
    ending: Ending
    reason: str = ""
    seconds: float = 0.0
    curve: Sequence[float] = field(default_factory=tuple)
    """The first metric after each epoch of the last stage, as far as it is scored there."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """A sweep that has come to its end."""

    run: Run
    space: str
    metrics: tuple[Metric, ...]
    trials: tuple[TrialRecord, ...]

    @classmethod
    def of(cls, run: Run) -> Sweep:
        """Of its folder. Raises RunError when it has not ended, or its files are not as they were written."""
        said = run.read("sweep.json")
        if not (run.folder / "trials.json").exists():
            raise RunError(f"{run.name}: has not ended; go on with: ganseg tune --resume {run.name}")
        try:
            metrics = tuple(Metric(**metric) for metric in said["metrics"])
            return cls(run, said["space"], metrics, tuple(TrialRecord(**trial) for trial in run.read("trials.json")))
        except (KeyError, TypeError):
            raise RunError(f"{run.folder}: its sweep.json and trials.json cannot be read; restore them") from None

    @property
    def scored(self) -> tuple[TrialRecord, ...]:
        """Trials that have every metric."""
        return tuple(
            trial
            for trial in self.trials
            if trial.ending in ("finished", "stopped") and all(metric.name in trial.scores for metric in self.metrics)
        )

    @property
    def best(self) -> TrialRecord:
        """Best in the first metric; of those alike, the earlier. Raises RunError when no trial was scored."""
        if not self.scored:
            why = next((f": {trial.reason}" for trial in self.trials if trial.reason), "")
            raise RunError(f"{self.run.name}: none of its {len(self.trials)} trials came to a score{why}")
        first = self.metrics[0]
        return (max if first.mode == "max" else min)(self.scored, key=lambda trial: trial.scores[first.name])

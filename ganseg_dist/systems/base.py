"""The interface of systems: networks, stages of phases, losses and predictions; no loops, devices or files."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from ganseg_dist.data.batch import Batch
from ganseg_dist.metrics.registry import Mode, common_mode, find_score

BEGINNERS_EPOCHS = 10
"""First epochs of a stage, without alarms: a fresh generator's small weights make all its images alike."""


@dataclass(frozen=True, slots=True)
class Balance:
    """How a phase's terms are weighted against each other by their gradients' size.

    ratio: lambda_i = w_i * clip(|grad L_reference| / (|grad L_i| + eps)); the reference keeps its weight.
    inverse: lambda_i = 1 / (|grad L_i| + eps), GANet-Seg Eq. 10 as printed.
    Norms are taken at `parameter`, averaged over steps with `decay`, and detached.
    """

    parameter: str
    """Dotted from the network's name, such as "segmenter.head.weight": the last one all terms share."""
    reference: str
    rule: Literal["ratio", "inverse"] = "ratio"
    decay: float = 0.9
    clip: tuple[float, float] = (1e-3, 1e3)


@dataclass(frozen=True, slots=True)
class Phase:
    """One kind of step: which networks it updates, by which weighted terms, how often and in which epochs."""

    name: str
    trains: tuple[str, ...]
    weights: Mapping[str, float]
    """Weight of each term that `System.losses` returns for this phase."""
    every: int = 1
    """Batches per step of this phase."""
    epochs: range | None = None
    """Epochs of the stage in which it runs; none: all."""
    balance: Balance | None = None

    def due(self, epoch: int, batch: int) -> bool:
        """Whether this phase steps on this batch."""
        return (self.epochs is None or epoch in self.epochs) and batch % self.every == 0


@dataclass(frozen=True, slots=True)
class Monitor:
    """The validation score that chooses a stage's best epoch and may end it early."""

    scores: tuple[str, ...]
    """Names of the scores whose mean is watched, as far as a validation case counts in them."""
    patience: int | None = None
    """Epochs without improvement before the stage stops; none: never."""
    since: int = 0
    """First epoch that may be the best: earlier ones belong to a phase before it, such as the supervised one."""

    def __post_init__(self) -> None:
        """Raises ConfigError for scores that are not registered, or whose mean is better neither large nor small."""
        common_mode(self.scores)

    @property
    def mode(self) -> Mode | None:
        """Which values are better; None where no score is watched."""
        return common_mode(self.scores)

    def value(self, scores: Mapping[str, float]) -> float | None:
        """The watched mean; none when there is nothing to watch."""
        watched = [scores[name] for name in self.scores if name in scores]
        return sum(watched) / len(watched) if watched else None

    def better(self, new: float, old: float | None) -> bool:
        """Whether `new` improves on `old`."""
        return old is None or (new < old if self.mode == "min" else new > old)

    def best_epoch(self, epochs: Mapping[int, Mapping[str, float]]) -> int | None:
        """The first of the best of the stage's epochs that have scores; none where there is nothing to watch."""
        values = {epoch: self.value(scores) for epoch, scores in epochs.items() if epoch >= self.since}
        watched = {epoch: value for epoch, value in values.items() if value is not None}
        best = min if self.mode == "min" else max
        return best(watched, key=lambda epoch: watched[epoch]) if watched else None


@dataclass(frozen=True, slots=True)
class Alarm:
    """A validation score that must not fall below a bound, and the meaning of its fall."""

    score: str
    below: float
    message: str
    """The problem and the remedy, in one line."""
    since: int = BEGINNERS_EPOCHS
    """First epoch of the stage in which it may be raised."""

    def raised_by(self, epochs: Sequence[Mapping[str, float]]) -> bool:
        """Whether the score is there and has fallen in the last of the stage's epochs."""
        return len(epochs) > self.since and epochs[-1].get(self.score, math.inf) < self.below


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of training that runs to its end before the next begins."""

    name: str
    phases: tuple[Phase, ...]
    epochs: int
    learning_rate: float
    scores: tuple[str, ...]
    """Names of what `System.validate` returns for it."""
    monitor: Monitor
    examples: Literal["all", "tumour_free"] = "all"
    source: Literal["cohort", "healthy"] = "cohort"
    """The cohort it is trained on: the run's, or a separate healthy one."""
    modalities: tuple[str, ...] | None = None
    """Channels its batches hold; none: all of the run's."""
    augmented: bool = True
    """Whether its examples are transformed by `data.augment`."""
    alarms: tuple[Alarm, ...] = ()
    """Warnings for the user, such as of a generator that collapses."""

    def __post_init__(self) -> None:
        """Raises ConfigError for a score that is not registered."""
        for score in (*self.scores, *(alarm.score for alarm in self.alarms)):
            find_score(score)

    @property
    def networks(self) -> tuple[str, ...]:
        """Names of the networks it trains, in order."""
        return tuple(dict.fromkeys(name for phase in self.phases for name in phase.trains))

    @property
    def losses(self) -> tuple[str, ...]:
        """Names of what its steps log: `phase/term` of each term and, where terms are balanced, `phase/weight_term`."""
        weighted = {phase.name: [term for term, weight in phase.weights.items() if weight] for phase in self.phases}
        balanced = {phase.name for phase in self.phases if phase.balance is not None}
        return tuple(
            f"{phase}/{prefix}{term}"
            for phase, terms in weighted.items()
            for prefix in ("", *(("weight_",) if phase in balanced else ()))
            for term in terms
        )


class Ratio(NamedTuple):
    """A validation score as sums, so that a case's slices add up before the division, over any number of workers."""

    numerator: Tensor
    """(B,)"""
    denominator: Tensor
    """(B,)"""
    relevant: Tensor
    """(B,) above 0 where the slice lets its case count. Healthy subjects do not count for Dice: a single false pixel
    would turn their score from 1 to 0, and with few cases decide which epoch is the best."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """A system's prediction of a batch; parts that it does not predict are None."""

    probability: Tensor | None = None
    """(B, R, H, W) in [0, 1]."""
    anomaly: Tensor | None = None
    """(B, 1, H, W) in [0, 1]; 1 is least like healthy tissue."""
    reconstruction: Tensor | None = None
    """(B, C', H, W) in [-1, 1], the image with its lesion filled by healthy tissue."""
    synthetic: Tensor | None = None
    """(B, C, H, W) in [-1, 1], an image generated from the batch's masks and noise."""
    score: Tensor | None = None
    """(B,) in [0, 1], realism of the whole slice; low is abnormal."""
    classes: Tensor | None = None
    """(B, K) in [0, 1], each example's probabilities of the classes; they sum to 1."""

    def pictures(self) -> dict[str, Tensor | None]:
        """The parts that are images, by name."""
        return {name: getattr(self, name) for name in ("probability", "anomaly", "reconstruction", "synthetic")}


class System(Protocol):
    """One published method. The engine calls it; it never sees ranks, devices, files or loggers."""

    networks: Mapping[str, nn.Module]
    stages: tuple[Stage, ...]

    def sample(self, stage: str, rng: np.random.Generator) -> dict[str, npt.NDArray[np.float32]]:
        """One example's random parameters (holes, noise); the engine keys `rng` by seed, epoch and example."""

    def losses(self, phase: str, batch: Batch) -> dict[str, Tensor]:
        """Raw named terms, each a mean over examples; the engine weights, sums and logs them.

        One whose weight is 0 may be left out.
        """

    def validate(self, stage: str, batch: Batch) -> dict[str, Ratio]:
        """Validation scores of a batch, as sums for each example."""

    def predict(self, batch: Batch) -> Prediction:
        """Masks, images and scores, for metrics, exports and synthesis."""


def monitors_of(system: System) -> dict[str, Monitor]:
    """By stage, the score that chooses its epoch."""
    return {stage.name: stage.monitor for stage in system.stages}


class LossesByPhase:
    """`System.losses` of a system that has a method `_PHASE_losses` for each of its phases."""

    def losses(self, phase: str, batch: Batch) -> dict[str, Tensor]:
        """The phase's raw terms. Raises ValueError for a phase that the system does not have."""
        terms: Callable[[Batch], dict[str, Tensor]] | None = getattr(self, f"_{phase}_losses", None)
        if terms is None:
            raise ValueError(f"{type(self).__name__} has no phase {phase!r}")
        return terms(batch)


class Segments(System, Protocol):
    """A system whose config has `task = "segmentation"`: its network `segmenter` gives the logits of its regions."""

    head: Literal["sigmoid", "softmax"]
    """How logits become probabilities (`systems.regions.region_probability`)."""


class GeneratesFromMasks(System, Protocol):
    """A system whose config has `generates_from = "masks"`."""

    def generate(self, batch: Batch, z: Tensor) -> Tensor:
        """Images (B, C, H, W) in [-1, 1] of the masks of a batch; z as `sample` gives it for the stage `segment`."""


class GeneratesFromClasses(System, Protocol):
    """A system whose config has `generates_from = "classes"`."""

    classes: tuple[str, ...]

    @property
    def generated_classes(self) -> tuple[str, ...]:
        """The classes that its generator is trained on."""

    def generate(self, z: Tensor, label: Tensor) -> Tensor:
        """Images (B, C, H, W) in [-1, 1] of the classes `label`, (B,) int64; z as `sample` gives it for `detect`."""

"""Thresholds: of each region's probability, and of a slice's realism."""

from __future__ import annotations

from collections.abc import Sequence

from optuna.trial import BaseTrial

from ganseg_dist.evaluation.segmentation import TABLE_THRESHOLDS
from ganseg_dist.studies.sweeps.thresholds import REALISM, ThresholdSpace


def thresholds(trial: BaseTrial, names: Sequence[str]) -> None:
    """In hundredths; predictions below 0.02 are not stored."""
    for name in names:
        trial.suggest_float(name, 0.02, 0.98, step=0.01)


THRESHOLDS = ThresholdSpace(thresholds, {REALISM: TABLE_THRESHOLDS})

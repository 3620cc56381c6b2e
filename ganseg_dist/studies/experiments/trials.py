"""Trials of an experiment: runs that differ only in their config, their patients or their seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ganseg_dist.config import RunConfig, override
from ganseg_dist.data.cohort import Split
from ganseg_dist.errors import ConfigError

UNAUGMENTED = {
    "data.augment.flip": 0.0,
    "data.augment.rotation_degrees": 0.0,
    "data.augment.scale": 0.0,
    "data.augment.gain": 0.0,
    "data.augment.shift": 0.0,
}
ARMS: Mapping[str, Mapping[str, object]] = {
    "real": {"system.gan": False, **UNAUGMENTED},
    "classical": {"system.gan": False},
    "gan": {"system.gan": True, **UNAUGMENTED},
    "both": {"system.gan": True},
}
"""Training images of a segmenter: real ones, augmented ones, ones from a GAN, or all of them."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One run of an experiment."""

    name: str
    """Unique within the experiment, fit for a folder."""
    labels: Mapping[str, str | int | float]
    """What distinguishes it from the other trials, as columns of the table."""
    config: RunConfig
    split: Split

    def description(self) -> dict[str, Any]:
        """Its description in experiment.json; an experiment resumes only where this is the same."""
        config = self.config.model_dump(mode="json")
        return {"labels": dict(self.labels), "config": config, "split": self.split.to_dict()}


def arms(names: Sequence[str], config: RunConfig) -> dict[str, RunConfig]:
    """The config of each named arm. Raises ConfigError for an unknown name, or no names."""
    unknown = [name for name in names if name not in ARMS]
    if unknown:
        raise ConfigError(f"--arms {unknown[0]}: no such arm; choose among {', '.join(ARMS)}")
    if not names:
        raise ConfigError(f"--arms: names none; choose among {', '.join(ARMS)}")
    return {name: override(config, ARMS[name]) for name in names}

"""What an experiment is made of: runs that differ in their config, their patients or their seed, and nothing else."""

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
"""What a segmenter learns from: real images, turned and scaled ones, what a GAN made of them, or all of it."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One run of an experiment."""

    name: str
    """Unique within the experiment, fit for a folder."""
    labels: Mapping[str, str | int | float]
    """What tells it from the others, as columns of the table."""
    config: RunConfig
    split: Split

    def asked(self) -> dict[str, Any]:
        """What experiment.json keeps of it: an experiment goes on only where it is the same."""
        config = self.config.model_dump(mode="json")
        return {"labels": dict(self.labels), "config": config, "split": self.split.to_dict()}


def arms(names: Sequence[str], config: RunConfig) -> dict[str, RunConfig]:
    """The config of each named arm. Raises ConfigError for an unknown one, or none."""
    unknown = [name for name in names if name not in ARMS]
    if unknown:
        raise ConfigError(f"--arms {unknown[0]}: no such arm; choose among {', '.join(ARMS)}")
    if not names:
        raise ConfigError(f"--arms: names none; choose among {', '.join(ARMS)}")
    return {name: override(config, ARMS[name]) for name in names}

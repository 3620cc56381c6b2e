"""Scores against the share of the training patients, on the same test patients (GAN-OSMOSIS, Tables 2-5)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ganseg_dist.config import RunConfig, override
from ganseg_dist.data.cohort import Split
from ganseg_dist.errors import ConfigError
from ganseg_dist.studies.experiments.arms import image_arms
from ganseg_dist.studies.trial import Trial


def fraction_trials(
    config: RunConfig, split: Split, *, percentages: Sequence[int], arm_names: Sequence[str], seeds: int
) -> list[Trial]:
    """A trial for each percentage, arm and seed.

    Patients are nested: those of 10% are among those of 20%. Another seed means other patients, weights and noise;
    validation and test patients stay the same. All trials train the same epochs, with fewer steps for fewer patients.

    Raises ConfigError for a percentage outside 1 to 100.
    """
    check_percentages(percentages)
    configs = image_arms(arm_names, config)
    return [
        Trial(
            f"{percentage:03d}-{arm}-seed{seed}",
            {"percentage": percentage, "arm": arm, "seed": seed, "patients": len(part.train)},
            override(configs[arm], {"seed": seed}),
            part,
        )
        for percentage in sorted(set(percentages))
        for seed in range(seeds)
        for part in [nested(split, percentage, seed)]
        for arm in arm_names
    ]


def check_percentages(percentages: Sequence[int]) -> None:
    """Raises ConfigError for a percentage outside 1 to 100, or an empty list."""
    strange = [percentage for percentage in percentages if not 1 <= percentage <= 100]
    if strange or not percentages:
        given = strange[0] if strange else "(none)"
        raise ConfigError(f"--fractions {given}: is no percentage from 1 to 100; as in --fractions 10,50,100")


def nested(split: Split, percentage: int, seed: int) -> Split:
    """The split with this percentage of its training patients, at least one."""
    order = np.random.default_rng(seed).permutation(split.train).tolist()
    kept = order[: math.ceil(percentage * len(order) / 100)]
    return Split(tuple(sorted(kept)), split.validation, split.test)

"""Each loss term off in turn, and the corrected against the printed reading."""

from __future__ import annotations

from collections.abc import Mapping

from ganseg_dist.config import RunConfig, override
from ganseg_dist.data.cohort import Split
from ganseg_dist.errors import ConfigError
from ganseg_dist.names import folder_name
from ganseg_dist.registry import systems_with
from ganseg_dist.studies.experiments.trials import Trial


def ablation_trials(config: RunConfig, split: Split, *, seeds: int) -> list[Trial]:
    """The whole system, each of its terms off, its printed reading and its control; each for every seed.

    A row whose changes the config already has is left out, as it would repeat the whole system.

    Raises ConfigError for a system without terms to switch off, and for a config that is itself the control or the
    printed reading, which lacks some of the terms.
    """
    check_loss_terms(config)
    active_terms = {
        row: changes for row, changes in config.system.ablations.items() if override(config, changes) != config
    }
    rows: dict[str, Mapping[str, object]] = {
        "whole": {},
        **active_terms,
        "paper reading": {"system.reading": "paper"},
        "control, no GAN": {"system.gan": False},
    }
    return [
        Trial(
            f"{folder_name(row)}-seed{seed}",
            {"arm": row, "seed": seed},
            override(config, {**changes, "seed": seed}),
            split,
        )
        for row, changes in rows.items()
        for seed in range(seeds)
    ]


def check_loss_terms(config: RunConfig) -> None:
    """Raises ConfigError for a system without loss terms, and for a config that is one of the ablation's own rows."""
    if not config.system.ablations:
        others = systems_with("ablations")
        raise ConfigError(f"{config.recipe}: has no loss terms to switch off; choose a recipe of {', '.join(others)}")
    for field, given in (("gan", config.system.gan is False), ("reading", config.system.reading == "paper")):
        if given:
            raise ConfigError(f"system.{field}: is set to one of the ablation's own rows; leave it out")

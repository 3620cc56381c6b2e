"""What a sweep makes large or small: validation scores of its trials."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ganseg_dist.config import RunConfig
from ganseg_dist.errors import ConfigError
from ganseg_dist.runners.attempt import epochs_kept
from ganseg_dist.systems import build_system
from ganseg_dist.systems.base import Monitor

SMALLER_IS_BETTER = ("hd95", "lesion_hd95", "hole_l1", "kid")
ON_WHOLE_SCANS = ("dice", "iou", "sensitivity", "specificity", "hd95", "lesion_dice", "lesion_hd95", "lesion_f1")
"""Scores that `ganseg evaluate` has of whole scans; too slow for every epoch, they are computed after the last."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One objective."""

    name: str
    """As a person writes it: `val/dice_wt`."""
    mode: Literal["max", "min"]
    every_epoch: bool
    """Whether the last stage scores it after every epoch."""

    @property
    def score(self) -> str:
        """Its name among a stage's scores."""
        return self.name.removeprefix("val/")

    def of_scan(self, scores: Mapping[str, float]) -> float:
        """Out of the scores of one scan, which have a region and a unit: `hd95_wt` is `wt/hd95_mm`."""
        score, _, region = self.score.rpartition("_")
        names = (f"{region}/{score}{unit}" for unit in ("", "_mm", "_px"))
        return next((scores[name] for name in names if name in scores), math.nan)


def metrics_of(asked: Sequence[str], config: RunConfig) -> tuple[Metric, ...]:
    """The metrics by their names; none named: what the recipe's last stage chooses its epoch by.

    Args:
        config: resolved.

    Raises ConfigError for a name that trials of this recipe do not have.
    """
    stage = build_system(config).stages[-1]
    every_epoch = [f"val/{name}" for name in dict.fromkeys((*stage.monitor.scores, *stage.scores))]
    regions = config.data.regions or ()
    whole = [f"val/{score}_{region}" for region in regions for score in ON_WHOLE_SCANS]
    found = []
    for name in asked or every_epoch[:1]:
        if name not in (*every_epoch, *whole):
            raise ConfigError(
                f"--metric {name}: no such score of {config.recipe}; choose among {', '.join(every_epoch)}"
                + (f", and of whole scans, after the last epoch, {', '.join(whole)}" if whole else "")
            )
        smaller = name.removeprefix("val/").startswith(SMALLER_IS_BETTER)
        found.append(Metric(name, "min" if smaller else "max", name in every_epoch))
    if len(set(asked)) < len(asked):
        raise ConfigError(f"--metric {', '.join(asked)}: names one twice; name each once")
    return tuple(found)


def scores_so_far(
    history: Sequence[Mapping[str, Any]], metrics: Sequence[Metric], monitors: Mapping[str, Monitor], config: RunConfig
) -> dict[str, Any]:
    """The metrics of the epoch that would be kept if training ended here, and `epoch`, of the last stage.

    Before the last stage has an epoch the metrics are NaN and `epoch` is not there, so that no trial is stopped for
    what its earlier stages do.

    Args:
        history: as the engine keeps it.
        monitors: what chooses each stage's epoch, by stage in order.
    """
    last = list(monitors)[-1]
    of_stage = {record["epoch"]: record["scores"] for record in history if record["stage"] == last}
    per_epoch = [metric for metric in metrics if metric.every_epoch]
    if not of_stage:
        return {metric.name: math.nan for metric in per_epoch}
    kept = epochs_kept(history, {last: monitors[last]}, config)[last]["epoch"]
    return {"epoch": max(of_stage) + 1, **{m.name: of_stage[kept].get(m.score, math.nan) for m in per_epoch}}

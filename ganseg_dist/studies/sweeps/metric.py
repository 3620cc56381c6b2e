"""What a sweep makes large or small: validation scores of its trials."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ganseg_dist.config import RunConfig
from ganseg_dist.errors import ConfigError
from ganseg_dist.metrics.registry import REGISTERED, Mode, common_mode, score_called
from ganseg_dist.suggestion import suggestion
from ganseg_dist.systems import build_system
from ganseg_dist.systems.base import Monitor
from ganseg_dist.training.run_training import epochs_kept

ON_WHOLE_SCANS = tuple(score.name for score in REGISTERED if score.of_scan and score.mode is not None)
"""Scores that `ganseg evaluate` has of whole scans; too slow for every epoch, they are computed after the last."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One objective."""

    name: str
    """As a person writes it: `val/dice_wt`."""
    every_epoch: bool
    """Whether the last stage scores it after every epoch."""

    @property
    def score(self) -> str:
        """Its name among a stage's scores."""
        return self.name.removeprefix("val/")

    @property
    def mode(self) -> Mode:
        """Which values are better. Raises ConfigError where neither are."""
        mode = common_mode([self.score])
        assert mode is not None
        return mode

    def shown(self, value: float) -> str:
        """With as many decimals as mean something."""
        return f"{value:.{score_called(self.score).decimals}f}"

    def of_scan(self, scores: Mapping[str, float]) -> float:
        """Out of the scores of one scan, which have a region and a unit: `hd95_wt` is `wt/hd95_mm`."""
        score, _, region = self.score.rpartition("_")
        return score_of_scan(scores, score, region)


def score_of_scan(scores: Mapping[str, float], score: str, region: str) -> float:
    """A region's score in the row of a scan, whatever its unit; NaN where it is not there."""
    names = (f"{region}/{score}{unit}" for unit in ("", "_mm", "_px"))
    return next((scores[name] for name in names if name in scores), math.nan)


def metrics_of(asked: Sequence[str], config: RunConfig, *, told_by_epoch: bool = True) -> tuple[Metric, ...]:
    """The metrics by their names; none named: what the recipe's last stage chooses its epoch by.

    Args:
        config: resolved.
        told_by_epoch: whether epochs are scored at all; hospitals whose patients are promised privacy tell nothing.

    Raises ConfigError for a name that trials of this recipe do not have.
    """
    stage = build_system(config).stages[-1]
    scores = dict.fromkeys((*stage.monitor.scores, *stage.scores))
    by_epoch = [f"val/{name}" for name in scores if score_called(name).mode is not None]
    every_epoch = by_epoch if told_by_epoch else []
    regions = config.data.regions or ()
    on_scans = [f"val/{score}_{region}" for region in regions for score in ON_WHOLE_SCANS]
    whole = [name for name in on_scans if name not in every_epoch]
    if not (every_epoch or whole):
        raise ConfigError(
            f"--metric: with privacy sites tell no scores, and {config.recipe} has none of whole scans; nothing can be "
            "searched by"
        )
    found = []
    for name in asked or (every_epoch or whole)[:1]:
        if name not in (*every_epoch, *whole):
            choice = _choice(name, every_epoch, regions)
            raise ConfigError(f"--metric {name}: no such score of {config.recipe}; {choice}")
        found.append(Metric(name, every_epoch=name in every_epoch))
    if len(set(asked)) < len(asked):
        raise ConfigError(f"--metric {', '.join(asked)}: names one twice; name each once")
    return tuple(found)


def _choice(wrong: str, every_epoch: Sequence[str], regions: Sequence[str]) -> str:
    """A name that is close to a wrong one, else what there is."""
    on_scans = [f"val/{score}_{region}" for region in regions for score in ON_WHOLE_SCANS]
    kinds = [f"of every epoch {', '.join(every_epoch)}"] if every_epoch else []
    if regions:
        scores, of = ", ".join(ON_WHOLE_SCANS), ", ".join(regions)
        kinds.append(f"of whole scans val/SCORE_REGION, with one of {scores} and of {of}")
    return suggestion(wrong, [*every_epoch, *on_scans], f"choose {'; or '.join(kinds)}")


def scores_so_far(
    history: Sequence[Mapping[str, Any]], metrics: Sequence[Metric], monitors: Mapping[str, Monitor], config: RunConfig
) -> dict[str, Any]:
    """The metrics of the epoch that would be kept if training ended here, and `epoch`, of the last stage.

    Metrics of whole scans are NaN, as they come after the last epoch. Before the last stage has an epoch all are, and
    `epoch` is not there, so that no trial is stopped for what its earlier stages do.

    Args:
        history: as the engine keeps it.
        monitors: what chooses each stage's epoch, by stage in order.
    """
    last = list(monitors)[-1]
    of_stage = {record["epoch"]: record["scores"] for record in history if record["stage"] == last}
    unscored: dict[str, Any] = {metric.name: math.nan for metric in metrics}
    if not of_stage:
        return unscored
    kept = of_stage[epochs_kept(history, {last: monitors[last]}, config)[last]["epoch"]]
    scored = {metric.name: kept.get(metric.score, math.nan) for metric in metrics if metric.every_epoch}
    return {"epoch": max(of_stage) + 1, **unscored, **scored}

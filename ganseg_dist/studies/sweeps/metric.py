"""Objectives of a sweep: validation scores of its trials."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ganseg_dist.config import RunConfig
from ganseg_dist.engine.state import Epoch
from ganseg_dist.errors import ConfigError
from ganseg_dist.metrics.registry import REGISTERED, Mode, common_mode, find_score
from ganseg_dist.suggestion import suggestion
from ganseg_dist.systems import outline_system
from ganseg_dist.systems.base import Monitor
from ganseg_dist.training.run_training import epochs_kept

ON_WHOLE_SCANS = tuple(score.name for score in REGISTERED if score.of_scan and score.mode is not None)
"""Scores of whole scans, as in `ganseg evaluate`; too slow for every epoch, they are computed after the last."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One objective."""

    name: str
    """As in --metric, such as `val/dice_wt`."""
    every_epoch: bool
    """Whether the last stage scores it after every epoch."""

    @property
    def score(self) -> str:
        """Its name among a stage's scores."""
        return self.name.removeprefix("val/")

    @property
    def mode(self) -> Mode:
        """Whether large or small values are better. Raises ConfigError where neither are."""
        mode = common_mode([self.score])
        assert mode is not None
        return mode

    def format_value(self, value: float) -> str:
        """A value as text, with as many decimals as the score has."""
        return f"{value:.{find_score(self.score).decimals}f}"

    def of_scan(self, scores: Mapping[str, float]) -> float:
        """The metric in the scores of one scan, whose names have a region and a unit: `hd95_wt` is `wt/hd95_mm`."""
        score, _, region = self.score.rpartition("_")
        return score_of_scan(scores, score, region)


def score_of_scan(scores: Mapping[str, float], score: str, region: str) -> float:
    """A region's score in the row of a scan, whatever its unit; NaN where the row lacks it."""
    names = (f"{region}/{score}{unit}" for unit in ("", "_mm", "_px"))
    return next((scores[name] for name in names if name in scores), math.nan)


def metrics_of(requested: Sequence[str], config: RunConfig, *, scored_by_epoch: bool = True) -> tuple[Metric, ...]:
    """The metrics of these names; without any, the score by which the recipe's last stage chooses its epoch.

    Epochs are not `scored_by_epoch` where hospitals send no scores. The config is resolved.

    Raises ConfigError for a name that trials of this recipe do not have.
    """
    stage = outline_system(config).stages[-1]
    scores = dict.fromkeys((*stage.monitor.scores, *stage.scores))
    by_epoch = [f"val/{name}" for name in scores if find_score(name).mode is not None]
    every_epoch = by_epoch if scored_by_epoch else []
    regions = config.data.regions or ()
    on_scans = [f"val/{score}_{region}" for region in regions for score in ON_WHOLE_SCANS]
    scan_names = [name for name in on_scans if name not in every_epoch]
    if not (every_epoch or scan_names):
        raise ConfigError(
            f"--metric: rounds have no scores, with privacy or one site to validate at, and {config.recipe} has none "
            "of whole scans; search without privacy, or raise data.validation_fraction"
        )
    metrics = []
    for name in requested or (every_epoch or scan_names)[:1]:
        if name not in (*every_epoch, *scan_names):
            hint = _suggest_metric(name, every_epoch, on_scans, regions)
            raise ConfigError(f"--metric {name}: no such score of {config.recipe}; {hint}")
        metrics.append(Metric(name, every_epoch=name in every_epoch))
    if len(set(requested)) < len(requested):
        raise ConfigError(f"--metric {', '.join(requested)}: names one twice; name each once")
    return tuple(metrics)


def _suggest_metric(name: str, every_epoch: Sequence[str], on_scans: Sequence[str], regions: Sequence[str]) -> str:
    """A hint for an unknown name: a name close to it, else all that can be chosen."""
    kinds = [f"of every epoch {', '.join(every_epoch)}"] if every_epoch else []
    if regions:
        scores, of = ", ".join(ON_WHOLE_SCANS), ", ".join(regions)
        kinds.append(f"of whole scans val/SCORE_REGION, with one of {scores} and of {of}")
    return suggestion(name, [*every_epoch, *on_scans], f"choose {'; or '.join(kinds)}")


def scores_so_far(
    history: Sequence[Epoch], metrics: Sequence[Metric], monitors: Mapping[str, Monitor], config: RunConfig
) -> dict[str, Any]:
    """The metrics of the epoch that would be kept if training ended here, and `epoch`, of the last stage.

    Metrics of whole scans are NaN, as they come after the last epoch. Before the last stage has an epoch all metrics
    are NaN and `epoch` is absent, so that no trial is stopped for the scores of its earlier stages.
    """
    last = list(monitors)[-1]
    of_stage = {record.epoch: record.scores for record in history if record.stage == last}
    unscored: dict[str, Any] = {metric.name: math.nan for metric in metrics}
    if not of_stage:
        return unscored
    kept = of_stage[epochs_kept(history, {last: monitors[last]}, config)[last].epoch]
    scored = {metric.name: kept.get(metric.score, math.nan) for metric in metrics if metric.every_epoch}
    return {"epoch": max(of_stage) + 1, **unscored, **scored}

"""Search thresholds on Ray Tune over stored probabilities of validation patients: takes seconds, trains nothing.

`ganseg calibrate` takes each region's best threshold by Dice from a grid, exactly. This search covers what a grid over
one number cannot: scores of whole masks, such as HD95 and those by lesion, several regions at once, and fronts.

runs/SWEEP/study.json     the request, with the run and the digest of its weights
runs/RUN/probabilities/   the model's probabilities of the validation scans, shared by all such sweeps of the run
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ganseg_dist.cluster.ray_cluster import ray_cluster
from ganseg_dist.cluster.shared_paths import SharedPath, check_shared_paths
from ganseg_dist.cluster.tune import Search, TunePlan, TuneResult
from ganseg_dist.data.cohort import Case
from ganseg_dist.data.nesting import Masks, Rows, regions_at
from ganseg_dist.errors import ConfigError, DataError
from ganseg_dist.evaluation.probabilities import INDEX, KeptCase, keep_probabilities, read_probabilities
from ganseg_dist.inference.model_folder import Thresholds, weights_digest
from ganseg_dist.inference.predictor import Predictor
from ganseg_dist.metrics.detection import threshold_table
from ganseg_dist.metrics.registry import find_score
from ganseg_dist.metrics.segmentation import case_scores, dice_score, iou_score, sensitivity
from ganseg_dist.planning.mapper import Bar, no_bar
from ganseg_dist.runs import SWEEP, Run, named_run
from ganseg_dist.studies.study import Study
from ganseg_dist.studies.sweeps.metric import ON_WHOLE_SCANS, Metric, score_of_scan
from ganseg_dist.studies.sweeps.search import Watch, search
from ganseg_dist.studies.sweeps.space import BoundSpace
from ganseg_dist.studies.sweeps.sweep import Sweep
from ganseg_dist.studies.trial import TrialResult
from ganseg_dist.tracking.description import data_tags
from ganseg_dist.tracking.tracked_run import TrackedRun, open_parent

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

SPACE = "thresholds"
REALISM = "threshold.realism"
"""Name of the threshold of realism, below which a slice is called abnormal."""
SLICE_SCORES = ("youden_j", "accuracy")
"""Scores of classifying slices as abnormal (GANet-Seg, Table 1)."""
MASK_SCORES = tuple(score for score in ON_WHOLE_SCANS if not find_score(score).needs_foreground)
"""Scores that need the masks alone: no image is stored with the probabilities."""
BOX_SCORES = {"dice": dice_score, "iou": iou_score, "sensitivity": sensitivity}
"""Scores that need only the box around the masks, and no surfaces or lesions."""

read_once = lru_cache(maxsize=1)(read_probabilities)
"""The stored cases, read once by each process, which runs many trials."""


@dataclass(frozen=True, slots=True)
class ThresholdSpace:
    """The ranges of the thresholds, and the first values of the search."""

    sample: Callable[[BaseTrial, Sequence[str]], None]
    """Called with a trial and the names of the thresholds, such as threshold.wt and threshold.realism."""
    published: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """By name, the values that a paper gives; tried first, after 0.5."""


@dataclass(frozen=True, slots=True)
class ThresholdRequest:
    """The arguments of a threshold search."""

    run: Run
    """A finished run of a segmenter."""
    space: ThresholdSpace
    trials: int
    search: Search = "optuna"
    metrics: tuple[str, ...] = ()
    name: str = ""


@dataclass(frozen=True, slots=True)
class ThresholdJob:
    """Inputs of a trial's process besides its thresholds."""

    folder: Path
    regions: tuple[str, ...]
    inside: Rows
    """For each region, the indices of its row and of the regions inside it."""
    model_thresholds: Thresholds
    """Used for the regions that are not searched."""
    metrics: tuple[Metric, ...]

    def train(self, values: dict[str, float]) -> None:
        """Report the metrics at these thresholds to Tune, which calls this."""
        from ray import tune

        tune.report(scores_at(values, read_once(self.folder), self))


def search_thresholds(
    request: ThresholdRequest,
    validation_cases: Sequence[Case],
    *,
    gpu: bool = False,
    watch: Watch = lambda trial, done: None,
    bar: Bar = no_bar,
) -> tuple[Sweep, TrackedRun]:
    """Run every trial to its end; an interrupted search resumes. Returns the sweep and its parent run in MLflow.

    Raises RunError when the name belongs to another study, ConfigError for a metric that the run does not have, and
    DataError when no case has a mask.
    """
    run = request.run
    masked = [case for case in validation_cases if case.mask is not None]
    if not masked:
        raise DataError(f"{run.name}: no validation case has a mask to choose a threshold by")
    predictor = Predictor.load(run.model, "cuda" if gpu else "cpu")
    metrics = threshold_metrics(request.metrics, predictor.regions)
    searched = _searched_thresholds(metrics, predictor.regions)
    first = _first_values(searched, request.space, predictor.thresholds)
    weights = weights_digest(run.model)
    description = {
        "kind": SWEEP,
        "config": predictor.config.model_dump(mode="json"),
        "space": SPACE,
        "run": run.name,
        "weights": weights,
        "patients": len({case.patient for case in masked}),
        "trials": request.trials,
        "search": request.search,
        "metrics": [asdict(metric) for metric in metrics],
        "phantom": run.data().phantom,
    }
    study = Study.of_request(named_run(request.name), description)
    probabilities = run.folder / "probabilities"
    remaining = study.remaining()
    if remaining:
        with bar(f"Predicting {len(masked)} validation cases") as advance:
            keep_probabilities(probabilities, predictor, weights, masked, advance=advance)
        _check_scorable(metrics, read_probabilities(probabilities), predictor.regions)
    study.begin()  # after the checks: a rejected sweep must not reserve its name
    params = {"run": run.name, "space": SPACE, "trials": str(request.trials)}
    parent = open_parent(study.folder, SWEEP, params, data_tags(run.data()))
    if not remaining:
        return Sweep.of(study), parent
    plan = TunePlan(
        sample=BoundSpace(request.space.sample, searched),
        first_values=first[: request.trials],
        distributions={},
        trials=request.trials,
        scheduler="none",
        search=request.search,
        metrics={metric.name: metric.mode for metric in metrics},
        epochs=1,
        seed=predictor.config.seed,
        cpus=1,
        gpus=0,
    )
    job = ThresholdJob(probabilities, predictor.regions, predictor.inside, predictor.thresholds, metrics)
    with ExitStack() as stack:
        with bar("Starting Ray"):
            stack.enter_context(ray_cluster())
        check_shared_paths([SharedPath("GANSEG_RUNS", probabilities, (INDEX,))], {"CPU": 1})
        return search(study, plan, job.train, lambda trial: _trial_result(trial, study, metrics), watch), parent


def threshold_metrics(requested: Sequence[str], regions: Sequence[str]) -> tuple[Metric, ...]:
    """The metrics of these names; without any, val/dice, the mean over the regions.

    Raises ConfigError for an unknown name, and for scores of slices and of volumes together: no threshold affects both.
    """
    volumes = [f"val/{score}{of}" for score in MASK_SCORES for of in ("", *(f"_{region}" for region in regions))]
    slices = [f"val/{score}" for score in SLICE_SCORES]
    names = tuple(dict.fromkeys(requested)) or ("val/dice",)
    for name in names:
        if name not in (*volumes, *slices):
            raise ConfigError(
                f"--metric {name}: thresholds are searched by {', '.join(f'val/{score}' for score in MASK_SCORES)}, "
                f"each also of one region, as in val/dice_{regions[0]}, and of slices by {', '.join(slices)}"
            )
    if len({name in slices for name in names}) > 1:
        raise ConfigError(
            f"--metric {', '.join(names)}: no threshold is of volumes and of slices; search them one after the other"
        )
    return tuple(Metric(name, every_epoch=False) for name in names)


def scores_at(values: Mapping[str, float], cases: Sequence[KeptCase], job: ThresholdJob) -> dict[str, float]:
    """The metrics at these thresholds: means over the cases that hold the region, as in `ganseg calibrate`."""
    if REALISM in values:
        score, abnormal = (np.concatenate([getattr(case, name) for case in cases]) for name in ("score", "abnormal"))
        row = threshold_table(score.astype(np.float64), abnormal, [values[REALISM]])[0]
        return {metric.name: float(getattr(row, metric.score)) for metric in job.metrics}
    cut = [values.get(f"threshold.{region}", job.model_thresholds.of(region)) for region in job.regions]
    predicted = [regions_at(case.probability, cut, job.inside) for case in cases]
    scores: dict[str, float] = {}
    for metric in job.metrics:
        name, of = _score_and_regions(metric, job.regions)
        means = [_mean_score(name, cases, predicted, region, job.regions.index(region)) for region in of]
        scores[metric.name] = float(np.mean([mean for mean in means if mean is not None]))
    return scores


def with_thresholds(earlier: Thresholds, values: Mapping[str, float], patients: int) -> Thresholds:
    """A model's thresholds, with the searched ones replaced by the values of a search over this many patients."""
    thresholds = {name.removeprefix("threshold."): value for name, value in values.items()}
    realism = thresholds.pop(REALISM.removeprefix("threshold."), earlier.realism)
    return Thresholds({**earlier.regions, **thresholds}, realism, patients)


def _mean_score(
    score: str, cases: Sequence[KeptCase], predicted: Sequence[Masks], region: str, row: int
) -> float | None:
    """Mean over the cases that hold the region; None where none does."""
    scores = [
        _score(score, case, masks[row], region, row)
        for case, masks in zip(cases, predicted, strict=True)
        if case.truth[row].any()
    ]
    return float(np.mean(scores)) if scores else None


def _score(score: str, case: KeptCase, predicted: Masks, region: str, row: int) -> float:
    truth = case.truth[row]
    if score in BOX_SCORES:
        return BOX_SCORES[score](predicted, truth)
    whole = case_scores(case.whole(predicted)[None], case.whole(truth)[None], [region], case.spacing_mm)
    return score_of_scan(whole, score, region)


def _score_and_regions(metric: Metric, regions: Sequence[str]) -> tuple[str, Sequence[str]]:
    """Split a metric: `dice_wt` is dice of wt, `dice` is dice of all regions."""
    if metric.score in MASK_SCORES:
        return metric.score, regions
    score, _, region = metric.score.rpartition("_")
    return score, [region]


def _searched_thresholds(metrics: Sequence[Metric], regions: Sequence[str]) -> tuple[str, ...]:
    """The thresholds on which a metric depends; the others stay as in the model."""
    if metrics[0].score in SLICE_SCORES:
        return (REALISM,)
    of = {region for metric in metrics for region in _score_and_regions(metric, regions)[1]}
    return tuple(f"threshold.{region}" for region in regions if region in of)


def _first_values(searched: Sequence[str], space: ThresholdSpace, current: Thresholds) -> tuple[dict[str, float], ...]:
    """Distinct values of the first trials: 0.5 for all, the published, the model's current to two decimals."""
    values = [dict.fromkeys(searched, 0.5)]
    for name in searched:
        values += [values[0] | {name: value} for value in space.published.get(name, ())]
    values.append({name: round(current.of(name.removeprefix("threshold.")), 2) for name in searched if name != REALISM})
    distinct = {json.dumps(trial, sort_keys=True): trial for trial in values if trial}
    return tuple(distinct.values())


def _check_scorable(metrics: Sequence[Metric], cases: Sequence[KeptCase], regions: Sequence[str]) -> None:
    """Raises ConfigError or DataError where the data or the model lack what a metric needs."""
    if metrics[0].score in SLICE_SCORES:
        flags = {bool(flag) for case in cases for flag in case.abnormal}
        if not flags:
            raise ConfigError(f"--metric {metrics[0].name}: is of a discriminator's scores, and the model has none")
        if len(flags) < 2:
            raise DataError("validation: all slices are normal, or all abnormal; no threshold distinguishes them")
        return
    present = {region for row, region in enumerate(regions) for case in cases if case.truth[row].any()}
    for metric in metrics:
        of = _score_and_regions(metric, regions)[1]
        if not present & set(of):
            raise DataError(f"--metric {metric.name}: no validation case holds {', '.join(of)}")


def _trial_result(trial: TuneResult, study: Study, metrics: Sequence[Metric]) -> TrialResult:
    return TrialResult(
        f"{study.name}.{trial.number}",
        # rounding undoes float steps such as 0.43000000000000005
        {name: round(value, 6) for name, value in trial.values.items()},
        float(trial.scores.get("time_total_s", 0.0)),
        scores={metric.name: float(trial.scores[metric.name]) for metric in metrics if metric.name in trial.scores},
        state="failed" if trial.failed else "finished",
        reason=trial.reason,
    )

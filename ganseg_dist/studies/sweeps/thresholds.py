"""Thresholds searched on Ray Tune over kept probabilities of validation patients: seconds, and nothing is trained.

`ganseg calibrate` takes each region's best threshold by Dice from a grid, exactly. This is for what a grid over one
number cannot do: scores of whole masks, such as HD95 and those by lesion, several regions at once, and fronts.

runs/SWEEP/sweep.json     what was asked, of which run and which weights
runs/RUN/probabilities/   what the run's model says of the validation scans, for all such sweeps of it
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
from ganseg_dist.cluster.shared_paths import Place, check_shared_paths
from ganseg_dist.cluster.tune import Plan, Search, TrialEnd, run_trials
from ganseg_dist.data.cohort import Case
from ganseg_dist.data.nesting import Masks, Rows, regions_at
from ganseg_dist.errors import ConfigError, DataError
from ganseg_dist.evaluation.probabilities import INDEX, KeptCase, keep_probabilities, read_probabilities
from ganseg_dist.inference.model_folder import Thresholds, weights_digest
from ganseg_dist.inference.predictor import Predictor
from ganseg_dist.metrics.detection import threshold_table
from ganseg_dist.metrics.overlap import dice_score, iou_score, sensitivity
from ganseg_dist.metrics.segmentation import case_scores
from ganseg_dist.runs import Run, named_run
from ganseg_dist.studies.sweeps.metric import ON_WHOLE_SCANS, Metric, score_of_scan
from ganseg_dist.studies.sweeps.record import Ending, Sweep, TrialRecord, begin_sweep, write_trials
from ganseg_dist.studies.sweeps.space import Asks
from ganseg_dist.tracking.contents import data_tags
from ganseg_dist.tracking.tracked_run import TrackedRun, open_parent
from ganseg_dist.training.session import Bar, no_bar

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

SPACE = "thresholds"
REALISM = "threshold.realism"
"""Of a slice's realism, below which it is called abnormal."""
OF_SLICES = ("youden_j", "accuracy")
"""Scores of slices that are called abnormal or not (GANet-Seg, Table 1)."""
OF_MASKS = tuple(score for score in ON_WHOLE_SCANS if score != "body_specificity")
"""Scores that need no image: kept probabilities come without any."""
OF_A_BOX = {"dice": dice_score, "iou": iou_score, "sensitivity": sensitivity}
"""Scores that need no more than the box around the masks, and no search for surfaces or lesions."""


@dataclass(frozen=True, slots=True)
class ThresholdSpace:
    """What is asked of a trial about each threshold, and with what the search begins."""

    ask: Callable[[BaseTrial, Sequence[str]], None]
    """Told the names of the thresholds: threshold.wt, threshold.realism."""
    published: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """By name, the values that a paper gives; they are tried first, after 0.5."""


@dataclass(frozen=True, slots=True)
class ThresholdRequest:
    """What a person asks for."""

    run: Run
    """Finished, and segmenting."""
    space: ThresholdSpace
    trials: int
    search: Search = "optuna"
    metrics: tuple[str, ...] = ()
    name: str = ""
    """Of the sweep."""


@dataclass(frozen=True, slots=True)
class ThresholdJob:
    """All that a trial's process is sent beside its thresholds."""

    folder: Path
    regions: tuple[str, ...]
    inside: Rows
    """Of each region, its own row and those of the regions inside it."""
    own: Thresholds
    """The model's, for the regions that are not searched."""
    metrics: tuple[Metric, ...]

    def train(self, values: dict[str, float]) -> None:
        """What Tune calls."""
        from ray import tune

        tune.report(scores_at(values, _kept(self.folder), self))


def search_thresholds(
    asked: ThresholdRequest,
    cases: Sequence[Case],
    *,
    gpu: bool = False,
    watch: Callable[[TrialRecord, int], None] = lambda trial, done: None,
    bar: Bar = no_bar,
) -> tuple[Sweep, TrackedRun]:
    """Every trial to its end; interrupted and called again, it goes on. With it, the sweep's place in MLflow.

    Args:
        cases: of the run's validation patients.
        watch: told each trial that ends, and how many have.

    Raises RunError when the name stands for another sweep, ConfigError for a metric that the run does not have, and
    DataError when no case has a mask.
    """
    found, run = named_run(asked.name), asked.run
    masked = [case for case in cases if case.mask is not None]
    if not masked:
        raise DataError(f"{run.name}: no validation case has a mask to choose a threshold by")
    predictor = Predictor.load(run.model, "cuda" if gpu else "cpu")
    metrics = threshold_metrics(asked.metrics, predictor.regions)
    searched = _searched(metrics, predictor.regions)
    begin = _begin(searched, asked.space, predictor.thresholds)
    weights = weights_digest(run.model)
    said = {
        "config": predictor.config.model_dump(mode="json"),
        "space": SPACE,
        "run": run.name,
        "weights": weights,
        "patients": len({case.patient for case in masked}),
        "trials": asked.trials,
        "search": asked.search,
        "metrics": [asdict(metric) for metric in metrics],
        "phantom": run.read("data.json")["phantom"],
    }
    kept = run.folder / "probabilities"
    ended = (found.folder / "trials.json").exists()
    if not ended:  # first: what cannot be searched uses up no name
        with bar(f"Predicting {len(masked)} validation cases") as advance:
            keep_probabilities(kept, predictor, weights, masked, advance=advance)
        _check_scored(metrics, read_probabilities(kept), predictor.regions)
    begin_sweep(found, said)
    params = {"run": run.name, "space": SPACE, "trials": str(asked.trials)}
    parent = open_parent(found.folder, "sweep", params, data_tags(run.read("data.json")))
    if ended:
        return Sweep.of(found), parent
    with ExitStack() as stack:
        with bar("Starting Ray"):
            stack.enter_context(ray_cluster())
        check_shared_paths([Place("GANSEG_RUNS", kept, (INDEX,))], {"CPU": 1})
        records: list[TrialRecord] = []

        def told(end: TrialEnd) -> None:
            records.append(_record(end, found, metrics))
            watch(records[-1], len(records))

        plan = Plan(
            ask=Asks(asked.space.ask, searched),
            begin=begin[: asked.trials],
            distributions={},
            trials=asked.trials,
            scheduler="none",
            search=asked.search,
            metrics={metric.name: metric.mode for metric in metrics},
            epochs=1,
            seed=predictor.config.seed,
            cpus=1,
            gpus=0,
        )
        job = ThresholdJob(kept, predictor.regions, predictor.inside, predictor.thresholds, metrics)
        ends = run_trials(plan, job.train, found.folder, told)
    trials = tuple(_record(end, found, metrics) for end in sorted(ends, key=lambda end: end.number))
    write_trials(found, trials)
    return Sweep(found, SPACE, metrics, trials), parent


def threshold_metrics(asked: Sequence[str], regions: Sequence[str]) -> tuple[Metric, ...]:
    """The metrics by their names; none named: val/dice, the mean over the regions.

    Raises ConfigError for a name that there is not, and for slices and volumes at once: no threshold is of both.
    """
    volumes = [f"val/{score}{of}" for score in OF_MASKS for of in ("", *(f"_{region}" for region in regions))]
    slices = [f"val/{score}" for score in OF_SLICES]
    named = tuple(dict.fromkeys(asked)) or ("val/dice",)
    for name in named:
        if name not in (*volumes, *slices):
            raise ConfigError(
                f"--metric {name}: thresholds are searched by {', '.join(f'val/{score}' for score in OF_MASKS)}, "
                f"each also of one region, as in val/dice_{regions[0]}, and of slices by {', '.join(slices)}"
            )
    if len({name in slices for name in named}) > 1:
        raise ConfigError(
            f"--metric {', '.join(named)}: no threshold is of volumes and of slices; search them one after the other"
        )
    return tuple(Metric(name, every_epoch=False) for name in named)


def scores_at(values: Mapping[str, float], cases: Sequence[KeptCase], job: ThresholdJob) -> dict[str, float]:
    """The metrics at these thresholds: means over the cases that hold the region, as `ganseg calibrate` takes them."""
    if REALISM in values:
        score, abnormal = (np.concatenate([getattr(case, name) for case in cases]) for name in ("score", "abnormal"))
        row = threshold_table(score.astype(np.float64), abnormal, [values[REALISM]])[0]
        return {metric.name: float(getattr(row, metric.score)) for metric in job.metrics}
    cut = [values.get(f"threshold.{region}", job.own.of(region)) for region in job.regions]
    predicted = [regions_at(case.probability, cut, job.inside) for case in cases]
    scores: dict[str, float] = {}
    for metric in job.metrics:
        name, of = _score_and_regions(metric, job.regions)
        means = [_mean(name, cases, predicted, region, job.regions.index(region)) for region in of]
        scores[metric.name] = float(np.mean([mean for mean in means if mean is not None]))
    return scores


def applied(earlier: Thresholds, values: Mapping[str, float], patients: int) -> Thresholds:
    """A model's thresholds with those that a search has found in place of its own."""
    found = {name.removeprefix("threshold."): value for name, value in values.items()}
    realism = found.pop(REALISM.removeprefix("threshold."), earlier.realism)
    return Thresholds({**earlier.regions, **found}, realism, patients)


def _mean(score: str, cases: Sequence[KeptCase], predicted: Sequence[Masks], region: str, row: int) -> float | None:
    """Of the cases that hold the region; None where none does."""
    held = [
        _score(score, case, masks[row], region, row)
        for case, masks in zip(cases, predicted, strict=True)
        if case.truth[row].any()
    ]
    return float(np.mean(held)) if held else None


def _score(score: str, case: KeptCase, predicted: Masks, region: str, row: int) -> float:
    truth = case.truth[row]
    if score in OF_A_BOX:
        return OF_A_BOX[score](predicted, truth)
    whole = case_scores(case.whole(predicted)[None], case.whole(truth)[None], [region], case.spacing_mm)
    return score_of_scan(whole, score, region)


def _score_and_regions(metric: Metric, regions: Sequence[str]) -> tuple[str, Sequence[str]]:
    """`dice_wt` is dice of wt, `dice` is dice of all."""
    if metric.score in OF_MASKS:
        return metric.score, regions
    score, _, region = metric.score.rpartition("_")
    return score, [region]


def _searched(metrics: Sequence[Metric], regions: Sequence[str]) -> tuple[str, ...]:
    """The thresholds on which a metric depends; the model keeps its own for the others."""
    if metrics[0].score in OF_SLICES:
        return (REALISM,)
    of = {region for metric in metrics for region in _score_and_regions(metric, regions)[1]}
    return tuple(f"threshold.{region}" for region in regions if region in of)


def _begin(searched: Sequence[str], space: ThresholdSpace, now: Thresholds) -> tuple[dict[str, float], ...]:
    """0.5 for all, then what is published, then the regions' own of now, in hundredths; each once."""
    values = [dict.fromkeys(searched, 0.5)]
    for name in searched:
        values += [values[0] | {name: value} for value in space.published.get(name, ())]
    values.append({name: round(now.of(name.removeprefix("threshold.")), 2) for name in searched if name != REALISM})
    distinct = {json.dumps(trial, sort_keys=True): trial for trial in values if trial}
    return tuple(distinct.values())


def _check_scored(metrics: Sequence[Metric], cases: Sequence[KeptCase], regions: Sequence[str]) -> None:
    """Raises ConfigError or DataError where a metric would have nothing to be taken of."""
    if metrics[0].score in OF_SLICES:
        flags = {bool(flag) for case in cases for flag in case.abnormal}
        if not flags:
            raise ConfigError(f"--metric {metrics[0].name}: is of a discriminator's scores, and the model has none")
        if len(flags) < 2:
            raise DataError("validation: all slices are normal, or all abnormal; no threshold tells them apart")
        return
    present = {region for row, region in enumerate(regions) for case in cases if case.truth[row].any()}
    for metric in metrics:
        of = _score_and_regions(metric, regions)[1]
        if not present & set(of):
            raise DataError(f"--metric {metric.name}: no validation case holds {', '.join(of)}")


def _record(end: TrialEnd, found: Run, metrics: Sequence[Metric]) -> TrialRecord:
    scores = {metric.name: float(end.scores[metric.name]) for metric in metrics if metric.name in end.scores}
    ending: Ending = "failed" if end.failed else "finished"
    seconds = float(end.scores.get("time_total_s", 0.0))
    values = {
        name: round(value, 6) for name, value in end.values.items()
    }  # 0.43, where steps come to 0.43000000000000005
    return TrialRecord(f"{found.name}.{end.number}", values, scores, 0, ending, end.reason, seconds)


@lru_cache(maxsize=1)
def _kept(folder: Path) -> tuple[KeptCase, ...]:
    """Read once by each process, which tries many thresholds."""
    return read_probabilities(folder)

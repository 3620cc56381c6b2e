"""Slices called abnormal by a discriminator at several thresholds: GANet-Seg's Table 1 as a measurement."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

from ganseg_dist.atomic import write_csv
from ganseg_dist.data.cohort import Case
from ganseg_dist.data.scan import load_scan
from ganseg_dist.errors import RunError
from ganseg_dist.experiments.figures import COLOURS
from ganseg_dist.experiments.measures import ACCURACY, AREAS, SENSITIVITY, SPECIFICITY, YOUDEN_J, Measure
from ganseg_dist.experiments.run import Job, Outcome
from ganseg_dist.experiments.scored import ScoredTrial, log_child
from ganseg_dist.inference.evaluation import TABLE_THRESHOLDS, CaseRow
from ganseg_dist.inference.predictor import Predictor
from ganseg_dist.metrics.detection import ThresholdRow, threshold_table
from ganseg_dist.metrics.statistics import Interval
from ganseg_dist.runs import Run

MEASURES: tuple[Measure, ...] = (ACCURACY, SENSITIVITY, SPECIFICITY, YOUDEN_J)

PUBLISHED = {
    0.1: {"accuracy": 0.7507, "sensitivity": 0.5124},
    0.2: {"accuracy": 0.7953, "sensitivity": 0.8852},
    0.3: {"accuracy": 0.7640, "sensitivity": 0.9500},
    0.4: {"accuracy": 0.7292, "sensitivity": 0.9811},
}
"""Table 1 of GANet-Seg, of other images, and no target: a threshold means something to its own discriminator alone."""


def threshold_trial(run: Run, cases: Sequence[Case]) -> ScoredTrial:
    """All slices judged once. Raises RunError when the run has no discriminator of slices."""
    config = run.config()
    if not config.system.knows_healthy_tissue:
        without = "" if config.system.synthesises else " without its GAN"
        raise RunError(
            f"{run.name}: {config.system.title}{without} has no discriminator that scores slices; "
            "give a run of ganet_seg with system.gan=true"
        )
    return ScoredTrial("slices", {"run": run.name}, run, tuple(case.id for case in cases))


def judge_slices(job: Job) -> Outcome:
    """A row a slice with enough body: `realism`, p = 1 - realism and `true`, whether it holds lesion."""
    trial: ScoredTrial = job.trial
    started = time.monotonic()
    predictor = Predictor.load(trial.run.model)
    rows = [row for case in trial.find_cases(job) for row in _slices(predictor, case)]
    outcome = Outcome(dict(trial.labels), time.monotonic() - started, tuple(rows))
    log_child(job, outcome, AREAS)
    return outcome


def _slices(predictor: Predictor, case: Case) -> list[CaseRow]:
    said = predictor.predict_scan(load_scan(case, predictor.modalities))
    realism, usable = said.on_prepared.score, said.prepared.usable
    assert realism is not None, "the trial was refused"
    return [
        CaseRow(case.id, case.patient, case.site, {"true": float(pixels > 0), "realism": score, "p": 1 - score})
        for score, pixels in zip(realism[usable].tolist(), said.prepared.lesion[usable], strict=True)
    ]


def at_thresholds(judged: Outcome, calibrated: float | None) -> list[Outcome]:
    """The slices called abnormal where realism is below each threshold: the paper's, and the calibrated one."""
    chosen = dict.fromkeys(TABLE_THRESHOLDS, "Table 1") | ({} if calibrated is None else {calibrated: "validation"})
    realism, abnormal = _numbers(judged)
    return [
        Outcome(_labels(counts, chosen[counts.threshold]), judged.seconds, _called(judged, counts.threshold))
        for counts in threshold_table(realism, abnormal, sorted(chosen))
    ]


def _labels(counts: ThresholdRow, chosen_by: str) -> dict[str, float | int | str]:
    return {
        "threshold": round(counts.threshold, 4),
        "chosen by": chosen_by,
        **{name: getattr(counts, name) for name in ("tp", "fn", "fp", "tn")},
    }


def _called(judged: Outcome, threshold: float) -> tuple[CaseRow, ...]:
    rows = []
    for row in judged.rows:
        called = float(row.scores["realism"] < threshold)
        numbers = {"true": row.scores["true"], "called": called, "correct": float(called == row.scores["true"])}
        rows.append(replace(row, scores=numbers))
    return tuple(rows)


def areas(judged: Outcome) -> dict[str, Interval]:
    """AUROC and AUPRC with intervals over patients. Raises DataError when no slice, or every one, holds lesion."""
    return {measure.name: measure.interval([judged.rows]) for measure in AREAS}


def save_areas(folder: Path, judged: Outcome, found: dict[str, Interval]) -> Path:
    """Write areas.csv beside the table, with what chance would have. Raises GansegError when the disk refuses."""
    _, abnormal = _numbers(judged)
    chance = {"auroc": 0.5, "auprc": float(abnormal.mean())}
    rows = [
        {"area": name, "mean": area.mean, "low": area.low, "high": area.high, "patients": area.n,
         "slices": len(abnormal), "abnormal": int(abnormal.sum()), "chance": chance[name]}
        for name, area in found.items()
    ]  # fmt: skip
    write_csv(folder / "areas.csv", rows)
    return folder / "areas.csv"


def draw(judged: Outcome, calibrated: float | None, auroc: Interval, title: str) -> Figure:
    """The ROC curve with the thresholds on it, and how real both kinds of slice look to the discriminator."""
    realism, abnormal = _numbers(judged)
    figure = Figure(figsize=(9, 4.2), dpi=120, layout="constrained")
    curve, spread = figure.subplots(1, 2)
    alarms, found, _ = roc_curve(abnormal, -realism)
    curve.plot(alarms, found, color=COLOURS[0])
    curve.plot([0, 1], [0, 1], color="0.8", linewidth=1, zorder=0)
    places: dict[tuple[float, float], list[float]] = {}
    for threshold in sorted({*TABLE_THRESHOLDS, *([] if calibrated is None else [calibrated])}):
        called = realism < threshold
        places.setdefault((float(called[~abnormal].mean()), float(called[abnormal].mean())), []).append(threshold)
    for place, here in places.items():
        colour = COLOURS[1] if calibrated in here else COLOURS[0]
        curve.plot(*place, "o", color=colour)
        named = ", ".join(f"{threshold:.2g}" for threshold in here)
        curve.annotate(named, place, xytext=(6, -12), textcoords="offset points", color=colour)
    curve.set(xlabel="1 - specificity", ylabel="sensitivity", aspect="equal", ylim=(-0.08, 1.04))
    curve.set_title(f"AUROC {auroc.mean:.3f} [{auroc.low:.3f}, {auroc.high:.3f}], {auroc.n} patients", fontsize=10)
    bins = np.linspace(min(realism.min(), min(TABLE_THRESHOLDS)), max(realism.max(), max(TABLE_THRESHOLDS)), 31)
    for some, colour, name in ((~abnormal, COLOURS[2], "without lesion"), (abnormal, COLOURS[1], "with lesion")):
        shown = realism[some]
        spread.hist(shown, bins, density=True, color=colour, alpha=0.5, label=f"{len(shown)} slices {name}")
    for threshold in TABLE_THRESHOLDS:
        spread.axvline(threshold, color="0.7", linewidth=1, linestyle="--")
    if calibrated is not None:
        spread.axvline(calibrated, color=COLOURS[1], linewidth=1)
    spread.set(xlabel="realism; dashed: thresholds of Table 1", ylabel="density")
    spread.legend(frameon=False)
    for axes in (curve, spread):
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    return figure


def _numbers(judged: Outcome) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Realism (N,) and whether a slice is abnormal (N,)."""
    realism = np.array([row.scores["realism"] for row in judged.rows])
    return realism, np.array([row.scores["true"] == 1 for row in judged.rows])

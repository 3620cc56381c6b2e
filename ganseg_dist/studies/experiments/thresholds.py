"""Slices called abnormal by a discriminator at several thresholds, as in GANet-Seg's Table 1."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

from ganseg_dist.atomic import write_csv
from ganseg_dist.data.cohort import Case
from ganseg_dist.data.scan import load_scan
from ganseg_dist.errors import RunError
from ganseg_dist.evaluation.segmentation import TABLE_THRESHOLDS, CaseRow
from ganseg_dist.inference.predictor import Predictor
from ganseg_dist.metrics.detection import ThresholdRow, threshold_table
from ganseg_dist.metrics.statistics import Interval
from ganseg_dist.runs import Run
from ganseg_dist.studies.experiments.figures import COLOURS, DPI, MUTED, RULE, STYLE
from ganseg_dist.studies.experiments.measures import ACCURACY, AREAS, SENSITIVITY, SPECIFICITY, YOUDEN_J, Measure
from ganseg_dist.studies.experiments.run import Job, Outcome
from ganseg_dist.studies.experiments.scored import ScoredTrial, log_child
from ganseg_dist.studies.experiments.table import ends, interval_text
from ganseg_dist.studies.experiments.wording import describe_subjects

Numbers = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

MEASURES: tuple[Measure, ...] = (ACCURACY, SENSITIVITY, SPECIFICITY, YOUDEN_J)


def threshold_trial(run: Run, cases: Sequence[Case]) -> ScoredTrial:
    """The single trial, which scores all slices. Raises RunError when the run has no discriminator of slices."""
    config = run.config()
    if not config.system.knows_healthy_tissue:
        without = "" if config.system.synthesises else " without its GAN"
        raise RunError(
            f"{run.name}: {config.system.title}{without} has no discriminator that scores slices; "
            "give a run of ganet_seg with system.gan=true"
        )
    return ScoredTrial("slices", {"run": run.name}, run, tuple(case.id for case in cases))


def score_slices(job: Job) -> Outcome:
    """A row per slice with enough foreground: `realism`, p = 1 - realism, and `true`, 1 where it holds lesion."""
    trial: ScoredTrial = job.trial
    started = time.monotonic()
    predictor = Predictor.load(trial.run.model)
    cases = trial.find_cases(job)
    rows = [row for case in cases for row in _slices(predictor, case)]
    patients_known = all(case.patient_known for case in cases)
    outcome = Outcome(dict(trial.labels), time.monotonic() - started, tuple(rows), patients_known)
    log_child(job, outcome, AREAS)
    return outcome


def _slices(predictor: Predictor, case: Case) -> list[CaseRow]:
    prediction = predictor.predict_scan(load_scan(case, predictor.modalities))
    realism, usable = prediction.on_prepared.score, prediction.prepared.usable
    assert realism is not None, "the trial was refused"
    return [
        CaseRow(case.id, case.patient, case.site, {"true": float(pixels > 0), "realism": score, "p": 1 - score})
        for score, pixels in zip(realism[usable].tolist(), prediction.prepared.lesion[usable], strict=True)
    ]


def at_thresholds(outcome: Outcome, calibrated: float | None) -> list[Outcome]:
    """Outcomes that call slices abnormal where realism is below each threshold: the paper's, and the calibrated one."""
    chosen = dict.fromkeys(TABLE_THRESHOLDS, "Table 1") | ({} if calibrated is None else {calibrated: "validation"})
    realism, abnormal = _numbers(outcome)
    return [
        replace(
            outcome, labels=_labels(counts, chosen[counts.threshold]), rows=_classified_rows(outcome, counts.threshold)
        )
        for counts in threshold_table(realism, abnormal, sorted(chosen))
    ]


def _labels(counts: ThresholdRow, chosen_by: str) -> dict[str, float | int | str]:
    return {
        "threshold": round(counts.threshold, 4),
        "chosen by": chosen_by,
        **{name: getattr(counts, name) for name in ("tp", "fn", "fp", "tn")},
    }


def _classified_rows(outcome: Outcome, threshold: float) -> tuple[CaseRow, ...]:
    rows = []
    for row in outcome.rows:
        called = float(row.scores["realism"] < threshold)
        numbers = {"true": row.scores["true"], "called": called, "correct": float(called == row.scores["true"])}
        rows.append(replace(row, scores=numbers))
    return tuple(rows)


def areas(outcome: Outcome) -> dict[str, Interval]:
    """AUROC and AUPRC with intervals over patients. Raises DataError when no slice, or every one, holds lesion."""
    return {measure.name: measure.interval([outcome.rows]) for measure in AREAS}


def save_areas(folder: Path, outcome: Outcome, areas_by_name: dict[str, Interval]) -> Path:
    """Write areas.csv beside the table, with the areas of chance. Raises GansegError when it cannot be written."""
    _, abnormal = _numbers(outcome)
    chance = {"auroc": 0.5, "auprc": float(abnormal.mean())}
    rows = [
        {"area": name, **ends(area), "patients": area.n,
         "slices": len(abnormal), "abnormal": int(abnormal.sum()), "chance": chance[name]}
        for name, area in areas_by_name.items()
    ]  # fmt: skip
    write_csv(folder / "areas.csv", rows)
    return folder / "areas.csv"


def calibration_figure(outcome: Outcome, calibrated: float | None, auroc: Interval, title: str) -> Figure:
    """The ROC curve with the thresholds on it, and histograms of realism of slices with and without lesion."""
    realism, abnormal = _numbers(outcome)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 4.4), dpi=DPI, layout="constrained")
        curve, spread = figure.subplots(1, 2)
        _draw_curve(curve, realism, abnormal, calibrated)
        curve.set_title(f"AUROC {interval_text(auroc, 'auroc')}", fontsize=9, loc="left")
        _draw_spread(spread, realism, abnormal, calibrated)
        over = describe_subjects(auroc.n, patients_known=outcome.patients_known)
        figure.suptitle(f"{title}\n{len(abnormal)} slices of {over}", x=0.01, ha="left", fontsize=10)
    return figure


def _draw_curve(axes: Axes, realism: Numbers, abnormal: Flags, calibrated: float | None) -> None:
    """True against false positive rates, with the thresholds on the curve."""
    false_positive_rates, sensitivities, _ = roc_curve(abnormal, -realism)
    axes.plot(false_positive_rates, sensitivities, color=COLOURS[0], linewidth=1.8)
    axes.plot([0, 1], [0, 1], color=RULE, linewidth=1, zorder=0, label="chance")
    places: dict[tuple[float, float], list[float]] = {}
    for threshold in sorted({*TABLE_THRESHOLDS, *([] if calibrated is None else [calibrated])}):
        called = realism < threshold
        places.setdefault((float(called[~abnormal].mean()), float(called[abnormal].mean())), []).append(threshold)
    for place, thresholds in places.items():
        colour = COLOURS[1] if calibrated in thresholds else COLOURS[0]
        axes.plot(*place, "o", color=colour)
        label = ", ".join(f"{threshold:.2g}" for threshold in thresholds)
        axes.annotate(label, place, xytext=(6, -12), textcoords="offset points", color=colour)
    axes.plot([], [], "o", color=COLOURS[0], label="threshold of Table 1")
    if calibrated is not None:
        axes.plot([], [], "o", color=COLOURS[1], label="threshold chosen on validation")
    axes.set(xlabel="1 − specificity", ylabel="sensitivity", aspect="equal", ylim=(-0.08, 1.04))
    axes.legend(loc="lower right")


def _draw_spread(axes: Axes, realism: Numbers, abnormal: Flags, calibrated: float | None) -> None:
    """Histograms of realism of slices with and without lesion, with the thresholds."""
    bins = np.linspace(min(realism.min(), min(TABLE_THRESHOLDS)), max(realism.max(), max(TABLE_THRESHOLDS)), 31)
    for group, colour, name in ((~abnormal, COLOURS[0], "without lesion"), (abnormal, COLOURS[4], "with lesion")):
        shares = realism[group]
        axes.hist(shares, bins.tolist(), density=True, color=colour, alpha=0.5, label=f"{len(shares)} slices {name}")
    for number, threshold in enumerate(TABLE_THRESHOLDS):
        label = None if number else "thresholds of Table 1"
        axes.axvline(threshold, color=MUTED, linewidth=1, linestyle="--", label=label)
    if calibrated is not None:
        axes.axvline(calibrated, color=COLOURS[1], linewidth=1.4, label="chosen on validation")
    axes.set(xlabel="realism", ylabel="density")
    axes.legend(frameon=True, facecolor="white", edgecolor="none", framealpha=0.9)


def _numbers(outcome: Outcome) -> tuple[Numbers, Flags]:
    """Realism (N,) and whether a slice is abnormal (N,)."""
    realism = np.array([row.scores["realism"] for row in outcome.rows])
    return realism, np.array([row.scores["true"] == 1 for row in outcome.rows])

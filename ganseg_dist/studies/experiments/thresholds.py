"""Slices called abnormal by a discriminator at several thresholds, as in GANet-Seg's Table 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ganseg_dist.atomic import write_csv
from ganseg_dist.data.cohort import Case
from ganseg_dist.data.scan import load_scan
from ganseg_dist.errors import RunError
from ganseg_dist.evaluation.results import CaseRow
from ganseg_dist.evaluation.segmentation import TABLE_THRESHOLDS
from ganseg_dist.inference.predictor import Predictor
from ganseg_dist.metrics.detection import ThresholdRow, roc, threshold_table
from ganseg_dist.metrics.statistics import Interval
from ganseg_dist.plots import Figure
from ganseg_dist.plots.roc import threshold_figure
from ganseg_dist.runs import Run
from ganseg_dist.studies.experiments.measures import ACCURACY, AREAS, SENSITIVITY, SPECIFICITY, YOUDEN_J, Measure
from ganseg_dist.studies.experiments.run import Job, score_trial
from ganseg_dist.studies.experiments.table import describe_subjects, ends, interval_text
from ganseg_dist.studies.trial import ScoredTrial, TrialResult

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
            "give a run whose discriminator learns healthy tissue, such as of ganet_seg with system.gan=true"
        )
    return ScoredTrial("slices", {"run": run.name}, run, tuple(case.id for case in cases))


def score_slices(job: Job) -> TrialResult:
    """A row per slice with enough foreground: `realism`, p = 1 - realism, and `true`, 1 where it holds lesion."""
    return score_trial(job, _slices, lambda config: AREAS)


def _slices(predictor: Predictor, case: Case) -> list[CaseRow]:
    realism, abnormal = predictor.predict_scan(load_scan(case, predictor.modalities)).realism()
    return [
        CaseRow(case.id, case.patient, case.site, {"true": float(true), "realism": score, "p": 1 - score})
        for score, true in zip(realism.tolist(), abnormal.tolist(), strict=True)
    ]


def at_thresholds(result: TrialResult, calibrated: float | None) -> list[TrialResult]:
    """Results that call slices abnormal where realism is below each threshold: the paper's, and the calibrated one."""
    chosen = dict.fromkeys(TABLE_THRESHOLDS, "Table 1") | ({} if calibrated is None else {calibrated: "validation"})
    realism, abnormal = _numbers(result)
    return [
        replace(
            result, values=_values(counts, chosen[counts.threshold]), rows=_classified_rows(result, counts.threshold)
        )
        for counts in threshold_table(realism, abnormal, sorted(chosen))
    ]


def _values(counts: ThresholdRow, chosen_by: str) -> dict[str, float | int | str]:
    return {
        "threshold": round(counts.threshold, 4),
        "chosen by": chosen_by,
        **{name: getattr(counts, name) for name in ("tp", "fn", "fp", "tn")},
    }


def _classified_rows(result: TrialResult, threshold: float) -> tuple[CaseRow, ...]:
    rows = []
    for row in result.rows:
        called = float(row.scores["realism"] < threshold)
        numbers = {"true": row.scores["true"], "called": called, "correct": float(called == row.scores["true"])}
        rows.append(replace(row, scores=numbers))
    return tuple(rows)


def areas(result: TrialResult) -> dict[str, Interval]:
    """AUROC and AUPRC with intervals over patients. Raises DataError when no slice, or every one, holds lesion."""
    return {measure.name: measure.interval([result.rows]) for measure in AREAS}


def save_areas(folder: Path, result: TrialResult, areas_by_name: dict[str, Interval]) -> Path:
    """Write areas.csv beside the table, with the areas of chance. Raises GansegError when it cannot be written."""
    _, abnormal = _numbers(result)
    chance = {"auroc": 0.5, "auprc": float(abnormal.mean())}
    rows = [
        {"area": name, **ends(area), "patients": area.n,
         "slices": len(abnormal), "abnormal": int(abnormal.sum()), "chance": chance[name]}
        for name, area in areas_by_name.items()
    ]  # fmt: skip
    write_csv(folder / "areas.csv", rows)
    return folder / "areas.csv"


def calibration_figure(result: TrialResult, calibrated: float | None, auroc: Interval, title: str) -> Figure:
    """The ROC curve with the thresholds on it, and histograms of realism of slices with and without lesion."""
    realism, abnormal = _numbers(result)
    thresholds = {*TABLE_THRESHOLDS, *([] if calibrated is None else [calibrated])}
    over = describe_subjects(auroc.n, patients_known=result.patients_known)
    return threshold_figure(
        f"{title}\n{len(abnormal)} slices of {over}",
        f"AUROC {interval_text(auroc, 'auroc')}",
        [(x, y) for x, y in roc(realism, abnormal).tolist()],
        {"without lesion": realism[~abnormal], "with lesion": realism[abnormal]},
        {at: (float((realism[~abnormal] < at).mean()), float((realism[abnormal] < at).mean())) for at in thresholds},
        calibrated,
    )


def _numbers(result: TrialResult) -> tuple[Numbers, Flags]:
    """Realism (N,) and whether a slice is abnormal (N,)."""
    realism = np.array([row.scores["realism"] for row in result.rows])
    return realism, np.array([row.scores["true"] == 1 for row in result.rows])

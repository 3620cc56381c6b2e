"""Scores arms on full volumes, case by case, with intervals, and the discriminator slice by slice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ganseg_dist.atomic import whole_folder, write_csv, write_json
from ganseg_dist.data.cohort import Case, are_colours
from ganseg_dist.data.grid import Volume
from ganseg_dist.data.labels import REGION_LABELS, Labels
from ganseg_dist.data.nesting import regions_at
from ganseg_dist.data.preprocess import native_foreground
from ganseg_dist.data.scan import Scan, load_scan
from ganseg_dist.evaluation.arms import Arm, ModelArm
from ganseg_dist.evaluation.gallery import Example, write_gallery
from ganseg_dist.evaluation.plausibility import implausible
from ganseg_dist.evaluation.results import (
    ArmDifference,
    ArmKind,
    ArmScores,
    CaseRow,
    Detection,
    Summary,
    extended,
    write_cases,
)
from ganseg_dist.inference.predictor import CasePrediction, Predictor
from ganseg_dist.metrics.detection import auprc, auroc, roc, threshold_table
from ganseg_dist.metrics.masks import Mask
from ganseg_dist.metrics.registry import find_score
from ganseg_dist.metrics.segmentation import case_scores
from ganseg_dist.metrics.statistics import compare_paired, mean_interval
from ganseg_dist.names import folder_names
from ganseg_dist.records import Record
from ganseg_dist.registry import load, registered
from ganseg_dist.sampling import evenly_spaced

TABLE_THRESHOLDS = (0.1, 0.2, 0.3, 0.4)
"""The rows of GANet-Seg's Table 1; the calibrated threshold is added."""

HELD_FOR_EVIDENCE = 12
"""Slices of each kind that a case gives to the healthy model's evidence."""


@dataclass(slots=True)
class Evaluation:
    """Everything measured on one part of a cohort."""

    part: str
    rows: dict[str, list[CaseRow]] = field(default_factory=dict)
    """By arm."""
    kinds: dict[str, ArmKind] = field(default_factory=dict)
    regions: tuple[str, ...] = ()
    """The regions that were scored."""
    implausible: Counter[str] = field(default_factory=Counter)
    """Number of cases by why the first arm's predicted lesion is implausible."""
    present: set[str] = field(default_factory=set)
    """Regions that some case's mask holds."""
    slice_scores: list[float] = field(default_factory=list)
    slice_abnormal: list[bool] = field(default_factory=list)
    pictures: list[Example] = field(default_factory=list)
    healthy_slices: list[tuple[str, Volume]] = field(default_factory=list)
    lesion_slices: list[tuple[str, Volume, Labels]] = field(default_factory=list)


def evaluate(
    arms: Sequence[Arm],
    cases: Sequence[Case],
    part: str,
    *,
    advance: Callable[[int, int], None] = lambda done, total: None,
    warn: Callable[[str], None] = lambda message: None,
) -> Evaluation:
    """Score every arm on every case; the first arm is the one whose slices and pictures are kept.

    Only regions that the labels of every case distinguish are scored. `warn` receives doubts about a
    scan's geometry, and so about its distances, and which predictions are implausible.

    Raises DataError when a case cannot be read or has no mask.
    """
    labelled = [region for region in REGION_LABELS if all(region in case.regions for case in cases)]
    kinds = {arm.name: arm.kind for arm in arms}
    scored = tuple(region for region in labelled if any(region in arm.regions for arm in arms))
    result = Evaluation(part, {arm.name: [] for arm in arms}, kinds, scored)
    foreground: Mask | None = None
    for index, case in enumerate(cases):
        for position, arm in enumerate(arms):
            scan = load_scan(case, arm.modalities)
            for doubt in scan.warnings if position == 0 else ():
                warn(f"{case.id}: {doubt}")
            predicted, prediction = arm.segment(scan)
            regions = [region for region in arm.regions if region in labelled]
            predicted = predicted[[arm.regions.index(region) for region in regions]]
            truth = region_masks(scan, regions)
            result.present |= {region for region, mask in zip(regions, truth, strict=True) if mask.any()}
            foreground = _foreground(case, scan) if position == 0 else foreground
            scores = case_scores(predicted, truth, regions, scan.grid.spacing_mm, foreground=foreground)
            result.rows[arm.name].append(CaseRow(case.id, case.patient, case.site, scores))
            if position == 0 and prediction is not None:
                flaw = implausible(prediction, arm.predictor.config.data) if isinstance(arm, ModelArm) else None
                if flaw is not None:
                    warn(f"{case.id}: {flaw.problem}; {flaw.remedy}")
                    result.implausible[flaw.check] += 1
                _keep_slices(result, case, prediction, scores[f"{arm.regions[0]}/dice"])
        advance(index + 1, len(cases))
    return result


def _foreground(case: Case, scan: Scan) -> Mask:
    """(X, Y, Z): the head or brain; of a picture in colour all of it."""
    if are_colours(case.images):
        return np.ones(scan.image.shape[1:], bool)
    return native_foreground(scan.image, scan.grid)


def region_masks(scan: Scan, regions: Sequence[str]) -> npt.NDArray[np.bool_]:
    """(R, X, Y, Z) of the scan's labels."""
    assert scan.labels is not None, "evaluation is for cases with a mask"
    return np.stack([np.isin(scan.labels, REGION_LABELS[region]) for region in regions])


def summarise(result: Evaluation, predictor: Predictor) -> Summary:
    """Every mean has its interval and n patients.

    A region that no case has is in `absent` and has no sensitivity, TP / (TP + FN).
    """
    main = next(iter(result.rows))
    absent = [region for region in result.regions if region not in result.present]
    undefined = {f"{region}/{score}" for region in absent for score in ("sensitivity", "lesion_sensitivity")}
    rows = []
    for arm, cases in result.rows.items():
        patients = [row.patient for row in cases]
        scores = {
            name: mean_interval([row.scores[name] for row in cases], patients, bounds=find_score(name).bounds)
            for name in cases[0].scores
            if name not in undefined
        }
        rows.append(ArmScores(name=arm, kind=result.kinds[arm], n=len(cases), scores=scores))
    return Summary(
        part=result.part,
        n_cases=len(result.rows[main]),
        n_patients=len({row.patient for row in result.rows[main]}),
        distance_unit="px" if any(name.endswith("_px") for name in result.rows[main][0].scores) else "mm",
        absent=tuple(absent),
        implausible=dict(result.implausible),
        rows=tuple(rows),
        paired=tuple(_paired(result, main, other) for other in result.rows if other != main),
        detection=_detection(result, predictor),
        evidence=_gan_evidence(result, predictor),
        thresholds={region: predictor.thresholds.of(region) for region in predictor.regions},
        calibrated_on=predictor.thresholds.calibrated_on,
    )


def save_evaluation(folder: Path, result: Evaluation, predictor: Predictor) -> Summary:
    """Write cases.csv, summary.json, thresholds.csv and gallery.npz in place of earlier ones; returns the summary.

    Raises GansegError when a file cannot be written; the earlier ones then stay.
    """
    summary = summarise(result, predictor)
    main = next(iter(result.rows))
    with whole_folder(folder) as unfinished:
        write_cases(unfinished / "cases.csv", result.rows[main])
        for arm, name in folder_names(arm for arm in result.rows if arm != main).items():
            write_cases(unfinished / f"cases-{name.lower()}.csv", result.rows[arm])
        if summary.detection is not None:
            write_csv(unfinished / "thresholds.csv", list(map(asdict, summary.detection.rows)))
        write_gallery(unfinished / "gallery.npz", result.pictures)
        write_json(unfinished / "summary.json", summary.model_dump())
    return summary


def _keep_slices(result: Evaluation, case: Case, prediction: CasePrediction, dice: float) -> None:
    prepared, on_prepared = prediction.prepared, prediction.on_prepared
    assert prepared.masks is not None
    lesion, foreground, usable = prepared.lesion, prepared.foreground, prepared.usable
    if on_prepared.score is not None:
        realism, holds_lesion = prediction.realism()
        result.slice_scores += realism.tolist()
        result.slice_abnormal += holds_lesion.tolist()
        for index in _some(np.flatnonzero(usable & (lesion == 0))):
            result.healthy_slices.append((case.patient, prepared.image[index]))
        for index in _some(np.flatnonzero(lesion > 0)):
            result.lesion_slices.append((case.patient, prepared.image[index], prepared.masks[index]))
    kept = int((lesion if lesion.any() else foreground).argmax())
    predicted = regions_at(on_prepared.probability[kept], prediction.thresholds, prediction.inside).astype(np.uint8)
    result.pictures.append(
        Example(
            case=case.id,
            slice=kept,
            dice=dice,
            sides_known=prediction.grid.sides_known,
            image=prepared.image[kept],
            truth=prepared.masks[kept],
            predicted=predicted,
            anomaly=None if on_prepared.anomaly is None else on_prepared.anomaly[kept],
            reconstruction=None if on_prepared.reconstruction is None else on_prepared.reconstruction[kept],
        )
    )


def _paired(result: Evaluation, first: str, second: str) -> ArmDifference:
    """Compare the Dice of the first shared region (whole tumour) by patient."""
    score = next(name for name in result.rows[second][0].scores if name in result.rows[first][0].scores)
    comparison = compare_paired(_by_patient(result.rows[first], score), _by_patient(result.rows[second], score))
    return extended(ArmDifference, comparison, score=score, a=first, b=second)


def _by_patient(rows: Sequence[CaseRow], score: str) -> dict[str, float]:
    values: dict[str, list[float]] = {}
    for row in rows:
        values.setdefault(row.patient, []).append(row.scores[score])
    return {patient: float(np.mean(scores)) for patient, scores in values.items()}


def _detection(result: Evaluation, predictor: Predictor) -> Detection | None:
    if not result.slice_scores:
        return None
    scores, abnormal = np.asarray(result.slice_scores), np.asarray(result.slice_abnormal)
    chosen = predictor.thresholds.realism
    thresholds = sorted({*TABLE_THRESHOLDS, *([chosen] if chosen is not None else [])})
    return Detection(
        auroc=auroc(scores, abnormal),
        auprc=auprc(scores, abnormal),
        n_slices=len(scores),
        n_abnormal=int(abnormal.sum()),
        score=predictor.config.system.slice_score or "",
        chosen=chosen,
        rows=threshold_table(scores, abnormal, thresholds),
        roc=tuple((x, y) for x, y in roc(scores, abnormal).round(5).tolist()),
    )


def _gan_evidence(result: Evaluation, predictor: Predictor) -> dict[str, Any] | None:
    """The system's evidence of its GAN on these slices; None where it has none."""
    function = registered()[predictor.config.system.name].evidence
    if function is None:
        return None
    found: Record | None = load(function)(
        predictor.system, predictor.config.seed, result.healthy_slices, result.lesion_slices
    )
    return None if found is None else found.model_dump()


def _some(indices: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """HELD_FOR_EVIDENCE of them at most, evenly spaced."""
    return indices[evenly_spaced(len(indices), HELD_FOR_EVIDENCE)]

"""Score a run on changed images of its test patients: noise, bias field, contrast, a missing sequence."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ganseg_dist.data.cohort import COLOURS, Case
from ganseg_dist.data.perturb import kinds_for, perturb, without
from ganseg_dist.data.preprocess import prepare_scan
from ganseg_dist.data.scan import Scan, load_scan
from ganseg_dist.data.slices import slice_classes
from ganseg_dist.evaluation.arms import ModelArm
from ganseg_dist.evaluation.classification import classify_prepared
from ganseg_dist.evaluation.results import CaseRow
from ganseg_dist.evaluation.segmentation import evaluate
from ganseg_dist.inference.predictor import CasePrediction, Predictor
from ganseg_dist.names import LONGEST_PART, folder_names
from ganseg_dist.runs import Run
from ganseg_dist.studies.experiments.measures import image_rows, measures_of
from ganseg_dist.studies.experiments.run import Job, score_trial
from ganseg_dist.studies.trial import ScoredTrial, TrialResult

UNCHANGED = "as they are"
MISSING = "without "
STRENGTHS: Mapping[str, tuple[float, ...]] = {
    "Gaussian noise": (0.02, 0.05, 0.1),
    "Rician noise": (0.02, 0.05, 0.1),
    "bias field": (0.2, 0.4, 0.8),
    "gamma": (0.2, 0.4, 0.8),
}
"""Noise as a share of the tissue's range; logarithms of a coil's largest gain and of gamma: 0.8 is a factor of 2.2."""


def robustness_trials(run: Run, cases: Sequence[Case], modalities: tuple[str, ...], *, seed: int) -> list[ScoredTrial]:
    """The unchanged images, then each change at each strength, then without each of several modalities.

    Colour channels of a picture are not left out, as they are never missing one by one.
    """
    changes: list[tuple[str, float | str]] = [(UNCHANGED, "")]
    changes += [(kind, strength) for kind in kinds_for(modalities) for strength in STRENGTHS[kind]]
    if len(modalities) > 1:
        changes += [(f"{MISSING}{name}", "") for name in modalities if name not in COLOURS]
    ids = tuple(case.id for case in cases)
    names = folder_names((f"{kind} {strength}".strip() for kind, strength in changes), longest=LONGEST_PART)
    return [
        ScoredTrial(slug.lower(), {"perturbation": kind, "strength": strength}, run, ids, seed)
        for slug, (kind, strength) in zip(names.values(), changes, strict=True)
    ]


def score_changed(job: Job) -> TrialResult:
    """Score the test cases with changed images and unchanged masks and classes."""

    def score(predictor: Predictor, case: Case) -> list[CaseRow]:
        score = {"segmentation": _score_case, "classification": _score_images}[predictor.config.system.task]
        return score(predictor, case, _change(job.trial, case))

    return score_trial(job, score, measures_of)


def _change(trial: ScoredTrial, case: Case) -> Callable[[Scan], Scan]:
    """The change of this case's scan: sampled by case, kind and seed, and the same sample at every strength."""
    kind, strength = str(trial.values["perturbation"]), trial.values["strength"]
    if kind == UNCHANGED:
        return lambda scan: scan
    if kind.startswith(MISSING):
        return lambda scan: without(scan, kind.removeprefix(MISSING))
    return lambda scan: perturb(
        scan, kind, float(strength), np.random.default_rng([trial.seed, *f"{kind}/{case.id}".encode()])
    )


@dataclass(frozen=True, slots=True)
class ChangedArm(ModelArm):
    """A model that segments changed scans."""

    change: Callable[[Scan], Scan]

    def segment(self, scan: Scan) -> tuple[npt.NDArray[np.bool_], CasePrediction | None]:
        """The model's regions of the changed scan."""
        return ModelArm.segment(self, self.change(scan))[0], None


def _score_case(predictor: Predictor, case: Case, change: Callable[[Scan], Scan]) -> list[CaseRow]:
    return evaluate([ChangedArm("changed", "model", predictor, change)], [case], "test").rows["changed"]


def _score_images(predictor: Predictor, case: Case, change: Callable[[Scan], Scan]) -> list[CaseRow]:
    regions, classes = predictor.regions, predictor.config.data.classes or ()
    scan = load_scan(case, predictor.modalities, with_mask=bool(regions))
    prepared = prepare_scan(change(scan), predictor.config.data, regions)
    lesion = None if prepared.masks is None else prepared.lesion
    truth = slice_classes(case.class_name, lesion, len(prepared.image), classes)
    rows = [replace(row, truth=truth[row.slice]) for row in classify_prepared(predictor, case, prepared)]
    return image_rows(rows, classes)

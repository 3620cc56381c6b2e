"""Lesion-wise scores, in which a small lesion counts as much as a large one.

There are two protocols: that of BraTS 2023 (`lesionwise_scores`) and that of GANet-Seg (`paper_lesionwise_dice`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_dilation, generate_binary_structure, label

from ganseg_dist.metrics.masks import Mask, MaskPair, pair_masks
from ganseg_dist.metrics.surface import hd95_of_points, points_of, surface_voxels

DILATION = 3
"""Iterations of the truth's dilation, in voxels."""
SMALLEST_LESION = 50
"""True lesions of this volume or less (mm3; voxels in pictures) are not scored."""
MISS_DISTANCE = 374.0
"""HD95 of a missed lesion or a false positive: the diagonal of a BraTS volume, rounded up."""


@dataclass(frozen=True, slots=True)
class LesionScores:
    """One case's lesion-wise scores."""

    dice: float
    """[0, 1]: a false positive and a missed lesion count 0 each."""
    hd95: float
    """mm, or pixels in pictures: a false positive and a missed lesion count 374 each."""
    sensitivity: float
    """[0, 1]: mean over true lesions, a missed one 0."""
    specificity: float
    """[0, 1]: mean over true lesions, a missed one 0."""
    detection_f1: float
    """[0, 1]: 2 hits / (2 hits + missed + false positives)."""
    n_truth: int
    """True lesions above the floor."""
    n_predicted: int
    n_missed: int
    """True lesions above the floor that no predicted component touches."""
    n_false_positive: int
    """Predicted components that touch no true lesion, large or small."""


def lesionwise_scores(prediction: Mask, truth: Mask, spacing_mm: Sequence[float] | None = None) -> LesionScores:
    """Score two boolean masks, (X, Y, Z) or (X, Y), lesion by lesion as BraTS 2023 does.

    The truth is dilated three times by `generate_binary_structure(3, 2)`; each 26-connected component of the
    dilation is one lesion, so lesions whose dilations touch are one. A 26-connected component of the
    prediction matches every lesion whose dilation it shares a voxel with. A lesion T_i, undilated, is scored
    against the union P_i of the components that match it, and over n = n_truth + n_false_positive

        dice = sum_i Dice(P_i, T_i) / n,    hd95 = (sum_i HD95(P_i, T_i) + 374 (misses + false positives)) / n

    (no lesions at all: 1 and 0). Sensitivity and specificity are GANet-Seg's Eq. 19 for (P_i, T_i), a missed
    lesion 0, averaged over true lesions; without any they are 1, or 0 beside a false positive.

    HD95 is that of `surface.hd95`, which counts surface voxels; the challenge's own code weighs surface elements by
    their area, so its distances differ from these by a fraction of a voxel (docs/verification.md).

    True lesions of 50 mm3 or less are dropped after matching: a component that touches only such a lesion is no
    false positive. False positives have no minimum size.

    Without `spacing_mm` (pictures) the floor is 50 voxels and distances, the penalty of 374 too, are in pixels.
    In one slice the structures are the plane sections of the 3-D ones.

    Raises DataError when the masks are not boolean, differ in shape or do not fit the spacing.
    """
    whole = pair_masks(prediction, truth, spacing_mm)
    if not (whole.prediction.any() or whole.truth.any()):
        return LesionScores(1.0, 0.0, 1.0, 1.0, 1.0, n_truth=0, n_predicted=0, n_missed=0, n_false_positive=0)
    pair = whole.cropped()
    matching = _match(pair)

    # Rounded, because an affine's rounding error must not lift a lesion over the floor.
    scored = np.round(matching.truth_voxels * pair.voxel_volume, 3) > SMALLEST_LESION
    detected = scored & matching.touches.any(axis=1)
    n_truth = int(scored.sum())
    n_missed = n_truth - int(detected.sum())
    n_false_positive = int((~matching.touches.any(axis=0)).sum())
    n_wrong = n_missed + n_false_positive
    n_scored = n_truth + n_false_positive

    hits, lesion, predicted = (
        voxels[detected] for voxels in (matching.shared_voxels, matching.truth_voxels, matching.predicted_voxels)
    )
    outside = whole.truth.size - lesion
    true_negatives = outside - (predicted - hits)
    # Where a lesion fills the image there is no background, and specificity is 1.
    specificities = np.where(outside > 0, true_negatives / np.maximum(outside, 1), 1.0)
    distances = _distances(pair, matching, np.flatnonzero(detected))
    without_lesions = float(n_false_positive == 0)
    return LesionScores(
        dice=float((2 * hits / (lesion + predicted)).sum()) / n_scored if n_scored else 1.0,
        hd95=(sum(distances) + MISS_DISTANCE * n_wrong) / n_scored if n_scored else 0.0,
        sensitivity=float((hits / lesion).sum()) / n_truth if n_truth else without_lesions,
        specificity=float(specificities.sum()) / n_truth if n_truth else without_lesions,
        detection_f1=2 * len(hits) / (2 * len(hits) + n_wrong) if n_scored else 1.0,
        n_truth=n_truth,
        n_predicted=matching.touches.shape[1],
        n_missed=n_missed,
        n_false_positive=n_false_positive,
    )


def paper_lesionwise_dice(prediction: Mask, truth: Mask) -> float:
    """GANet-Seg's lesion-wise Dice (Section 5.2, Eq. 18) of two boolean masks, (X, Y, Z) or (X, Y), in [0, 1].

    Dice(P_i, T_i) = |P_i ∩ T_i| / ((|P_i| + |T_i|) / 2), the mean over all lesions of the truth. T_i is a
    26-connected component of the truth, neither dilated nor dropped for its size; P_i is the union of the
    predicted components that overlap it, and a lesion that none overlaps scores 0. Predictions away from
    every lesion are ignored: the paper measures them by its specificity (Eq. 19). No lesion in the truth: 1
    if the prediction is empty too, else 0.

    Raises DataError when the masks are not boolean or differ in shape.
    """
    whole = pair_masks(prediction, truth)
    if not whole.truth.any():
        return float(not whole.prediction.any())
    lesions = _match(whole.cropped(), dilation=0)
    average_voxels = (lesions.predicted_voxels + lesions.truth_voxels) / 2
    return float(np.mean(lesions.shared_voxels / average_voxels))


@dataclass(frozen=True, slots=True)
class _Matching:
    """Which of N lesions each of M predicted components touches, and their sizes in voxels."""

    lesion_of: npt.NDArray[np.int32]
    """(X, Y, Z): 1..N inside the dilated lesions, 0 outside."""
    component_of: npt.NDArray[np.int32]
    """(X, Y, Z): 1..M inside the prediction, 0 outside."""
    touches: npt.NDArray[np.bool_]
    """(N, M)."""
    truth_voxels: npt.NDArray[np.int64]
    """(N,): |T_i|."""
    predicted_voxels: npt.NDArray[np.int64]
    """(N,): |P_i|, of all components that touch the lesion."""
    shared_voxels: npt.NDArray[np.int64]
    """(N,): |P_i ∩ T_i|."""


def _match(pair: MaskPair, dilation: int = DILATION) -> _Matching:
    """Number lesions and components, and count every overlap in one pass over the voxels."""
    ndim = pair.truth.ndim
    everywhere = generate_binary_structure(ndim, ndim)
    extent = pair.truth
    if dilation:
        extent = binary_dilation(pair.truth, generate_binary_structure(ndim, 2), iterations=dilation)
    # A component of the dilation is exactly the dilation of its true voxels: lesions are not dilated one by one.
    lesion_of, n_lesions = label(extent, everywhere)
    component_of, n_components = label(pair.prediction, everywhere)

    touches = np.zeros((n_lesions + 1, n_components + 1), np.bool_)
    touches[lesion_of[pair.prediction], component_of[pair.prediction]] = True
    touches = touches[1:, 1:]
    component_voxels = np.bincount(component_of[pair.prediction], minlength=n_components + 1)[1:]
    return _Matching(
        lesion_of,
        component_of,
        touches,
        truth_voxels=np.bincount(lesion_of[pair.truth], minlength=n_lesions + 1)[1:],
        predicted_voxels=touches @ component_voxels,
        # A predicted voxel on a true voxel lies in its dilation, so it belongs to a matching component.
        shared_voxels=np.bincount(lesion_of[pair.truth & pair.prediction], minlength=n_lesions + 1)[1:],
    )


def _distances(pair: MaskPair, matching: _Matching, lesions: npt.NDArray[np.intp]) -> list[float]:
    """HD95 of (P_i, T_i) for these lesions, counted from 0.

    Neither components nor lesions touch each other, so the surface of each is its part of the whole mask's
    surface, which is computed once.
    """
    if not len(lesions):
        return []
    truth_surface, predicted_surface = surface_voxels(pair.truth), surface_voxels(pair.prediction)
    truth_points, predicted_points = (points_of(mask, pair.spacing) for mask in (truth_surface, predicted_surface))
    lesion_at = matching.lesion_of[truth_surface] - 1
    component_at = matching.component_of[predicted_surface] - 1
    return [
        hd95_of_points(predicted_points[matching.touches[lesion, component_at]], truth_points[lesion_at == lesion])
        for lesion in lesions
    ]

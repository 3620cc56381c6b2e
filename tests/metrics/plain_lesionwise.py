"""The BraTS 2023 lesion-wise definition transcribed step by step on whole volumes: slow, and easy to check."""

from __future__ import annotations

import numpy as np
from scipy import ndimage


def plain_hd95(prediction, truth, spacing):
    edges = [mask & ~ndimage.binary_erosion(mask) for mask in (prediction, truth)]
    to_truth = ndimage.distance_transform_edt(~edges[1], sampling=spacing)[edges[0]]
    to_prediction = ndimage.distance_transform_edt(~edges[0], sampling=spacing)[edges[1]]
    return max(np.percentile(to_truth, 95), np.percentile(to_prediction, 95))


def plain_lesionwise(prediction, truth, spacing):
    """(dice, hd95, sensitivity, specificity, n_truth, n_predicted, n_missed, n_false_positive) of 3-D masks."""
    structure = ndimage.generate_binary_structure(3, 2)
    full = np.ones((3, 3, 3), bool)
    merged, n_lesions = ndimage.label(ndimage.binary_dilation(truth, structure, iterations=3), full)
    components, n_components = ndimage.label(prediction, full)
    matched_components = set()
    dices, distances, sensitivities, specificities = [], [], [], []
    n_missed = 0
    for lesion in range(1, n_lesions + 1):
        own = truth & (merged == lesion)
        dilated = ndimage.binary_dilation(own, structure, iterations=3)
        names = np.setdiff1d(np.unique(components[dilated]), [0])
        matched_components.update(names.tolist())
        if own.sum() * np.prod(spacing) <= 50:
            continue
        if not len(names):
            n_missed += 1
            dices.append(0.0)
            distances.append(374.0)
            sensitivities.append(0.0)
            specificities.append(0.0)
            continue
        union = np.isin(components, names)
        dices.append(2 * (union & own).sum() / (union.sum() + own.sum()))
        distances.append(plain_hd95(union, own, spacing))
        sensitivities.append((union & own).sum() / own.sum())
        specificities.append((~union & ~own).sum() / (~own).sum())
    n_false_positive = n_components - len(matched_components)
    n_scored = len(dices) + n_false_positive
    return (
        sum(dices) / n_scored if n_scored else 1.0,
        (sum(distances) + 374 * n_false_positive) / n_scored if n_scored else 0.0,
        np.mean(sensitivities) if dices else float(n_false_positive == 0),
        np.mean(specificities) if dices else float(n_false_positive == 0),
        len(dices),
        n_components,
        n_missed,
        n_false_positive,
    )

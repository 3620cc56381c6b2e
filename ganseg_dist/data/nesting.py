"""Masks of regions that lie inside one another, from their probabilities: one rule for files, pictures and scores."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import numpy.typing as npt

Masks = npt.NDArray[np.bool_]
Rows = Sequence[Sequence[int]]
"""For each region, its own row and those of the regions inside it."""


def rows_inside(regions: Sequence[str], labels: Mapping[str, Collection[object]]) -> tuple[tuple[int, ...], ...]:
    """`Rows` of regions by their labels: a region lies inside another that has all of its labels and more."""
    label_sets = [set(labels[region]) for region in regions]
    return tuple(
        tuple(row for row, inner in enumerate(label_sets) if row == region_row or inner < outer)
        for region_row, outer in enumerate(label_sets)
    )


def nested(masks: Masks, rows: Rows) -> Masks:
    """(R, ...) masks in which the voxels of an inner region belong to the outer ones too."""
    return np.stack([masks[list(inside)].any(axis=0) for inside in rows]) if len(rows) else masks


def regions_at(probability: npt.NDArray[np.floating], thresholds: Sequence[float], rows: Rows) -> Masks:
    """(R, ...) masks of (R, ...) probabilities at or above each region's threshold, nested.

    A voxel of an inner region belongs to the outer ones, whatever their thresholds: a label map cannot express
    anything else.
    """
    cut = np.asarray(thresholds, probability.dtype).reshape(-1, *[1] * (probability.ndim - 1))
    return nested(probability >= cut, rows)

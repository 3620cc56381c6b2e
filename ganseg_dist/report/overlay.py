"""Draws a predicted case: its slice with the most lesion, alone and outlined, on the scan's grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ganseg_dist.atomic import write_file
from ganseg_dist.data.cohort import COLOURS
from ganseg_dist.data.grid import Volume
from ganseg_dist.data.labels import LabelScheme
from ganseg_dist.data.picture import BRIGHTEST
from ganseg_dist.data.preprocess import picture_spacing, to_picture_axes
from ganseg_dist.data.scan import Scan
from ganseg_dist.display import Convention, View
from ganseg_dist.inference.predictor import CasePrediction
from ganseg_dist.plots.images import REGION_COLOURS, outline_figure
from ganseg_dist.plots.save import save_png
from ganseg_dist.report.score_text import capitalised, modality_label

WINDOW = (1.0, 99.8)
"""Percentiles of the foreground's intensities that are drawn black and white."""


def write_overlay(
    file: Path,
    case: str,
    scan: Scan,
    prediction: CasePrediction,
    regions: tuple[str, ...],
    scheme: LabelScheme,
    convention: Convention = Convention.RADIOLOGICAL,
) -> Path:
    """Write the axial slice with the most predicted lesion as a PNG; returns its path.

    The slice is drawn alone on the left, and on the right with each region's outline in its colour; the legend names
    regions after the model's labels. The last modality is shown, or a picture in its colours. Without a predicted
    lesion it is the middle slice, without outlines.

    Raises GansegError when the file cannot be written.
    """
    view = View.of(convention, sides_known=scan.grid.sides_known)
    masks = view.lay_out(np.stack([to_picture_axes(mask, scan.grid) for mask in prediction.regions]), columns=2)
    name, volume = _display_volume(scan)
    volume = view.lay_out(volume, columns=1)
    sizes = masks.any(axis=0).sum(axis=(0, 1))
    slice_index = int(sizes.argmax()) if sizes.any() else len(sizes) // 2
    row, column, _ = picture_spacing(scan.grid)
    figure = outline_figure(
        f"{case}   {name}, slice {slice_index + 1} of {len(sizes)}",
        view.caption,
        volume[:, :, slice_index],
        [
            (f"{capitalised(scheme.title(region))}, predicted", REGION_COLOURS[region], mask)
            for region, mask in zip(regions, masks[..., slice_index], strict=True)
        ],
        view.letters,
        aspect=volume.shape[0] * row / (volume.shape[1] * column),
    )
    write_file(file, lambda unfinished: save_png(figure, unfinished))
    return file


def _display_volume(scan: Scan) -> tuple[str, Volume]:
    """Name and intensities of what is drawn: (rows, columns, slices) or (rows, columns, slices, 3) in [0, 1]."""
    if set(COLOURS) <= set(scan.modalities):
        channels = [to_picture_axes(scan.image[scan.modalities.index(colour)], scan.grid) for colour in COLOURS]
        return "colour", (np.stack(channels, axis=-1) / BRIGHTEST).astype(np.float32)
    volume = to_picture_axes(scan.image[-1], scan.grid)
    inside = volume[volume > volume.min()]
    low, high = np.percentile(inside if inside.size else volume, WINDOW)
    return modality_label(scan.modalities[-1]), ((volume - low) / max(high - low, 1e-6)).clip(0, 1)

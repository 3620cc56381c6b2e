"""A predicted case at a glance: its slice with the most lesion, outlined."""

from __future__ import annotations

from pathlib import Path

from ganseg_dist.atomic import write_file
from ganseg_dist.inference.predictor import CasePrediction
from ganseg_dist.report.figures import overlay_png


def write_overlay(file: Path, prediction: CasePrediction) -> Path:
    """Write the slice with the most predicted lesion, every region outlined, as a PNG; returns its path.

    The last modality is shown. Where nothing is predicted it is the middle slice, without an outline.

    Raises GansegError when the file cannot be written.
    """
    probability = prediction.on_prepared.probability
    predicted = probability >= prediction.thresholds[:, None, None]
    sizes = predicted[:, 0].sum(axis=(1, 2))
    shown = int(sizes.argmax()) if sizes.any() else len(sizes) // 2
    picture = overlay_png(prediction.prepared.image[shown], None, predicted[shown])
    write_file(file, lambda unfinished: unfinished.write_bytes(picture))
    return file

"""Finds predictions that cannot be a lesion: most of it outside the foreground, or over most of the foreground."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from ganseg_dist.config import DataConfig
from ganseg_dist.data.batch import BACKGROUND
from ganseg_dist.data.grid import Flaw
from ganseg_dist.data.nesting import regions_at
from ganseg_dist.data.preprocess import intensities_of
from ganseg_dist.inference.predictor import CasePrediction

LARGEST_SHARE = 0.5
"""Largest plausible share of the predicted lesion outside the foreground, and of the foreground inside the predicted
lesion."""

OUTSIDE, OVERALL = "lesion-outside-foreground", "lesion-over-foreground"
REMEDY = "look at the mask, and check that the image is of the kind that the model was trained on"
KINDS: Mapping[str, str] = MappingProxyType(
    {OUTSIDE: "mostly outside the foreground", OVERALL: "over most of the foreground"}
)


def implausible(prediction: CasePrediction, config: DataConfig) -> Flaw | None:
    """The flaw of a case's predicted lesion on the prepared slices; None where it is plausible.

    In a colour picture every pixel is foreground: nothing is outside, and a lesion may well cover most of it.
    """
    image, probability = prediction.prepared.image, prediction.on_prepared.probability
    if intensities_of(config.modalities or (), config) == "colour":
        return None
    masks = regions_at(np.moveaxis(probability, 1, 0), prediction.thresholds, prediction.inside)
    lesion, foreground = np.asarray(masks.any(axis=0)), np.asarray((image > BACKGROUND).any(axis=1))
    if not lesion.any():
        return None
    if (outside := float((~foreground)[lesion].mean())) > LARGEST_SHARE:
        return Flaw(OUTSIDE, f"{outside:.0%} of the predicted lesion lies outside the foreground", REMEDY)
    if (covered := float(lesion[foreground].mean())) > LARGEST_SHARE:
        return Flaw(OVERALL, f"the predicted lesion is {covered:.0%} of the foreground", REMEDY)
    return None

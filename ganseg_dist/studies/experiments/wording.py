"""What rows, settings and test patients of an experiment are called in its table and its figure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ganseg_dist.data.cohort import MODALITIES
from ganseg_dist.plural import counted
from ganseg_dist.report.labels import modality_label

SETTINGS = {"percentage": "% of training patients", "patients": "patients trained", "perturbation": "change"}
"""Headers of labels whose own name does not say enough."""
ARM_NAMES = {"gan": "GAN"}
UNCHANGED = {"as they are": "images as they are"}
SHARED_TRAINING = "folds share training data, which the interval does not count"
WHOLE = "all"
"""What stands for a fold's number in the row of all folds together."""


def setting(name: str) -> str:
    """A label's header."""
    return SETTINGS.get(name, name)


def worded(labels: Mapping[str, Any], name: str) -> str:
    """One label's value, with its unit; empty where it says nothing."""
    value = labels[name]
    match name:
        case "strength" if value != "":
            return _strength(str(labels.get("perturbation", "")), float(value))
        case "perturbation":
            words = UNCHANGED.get(str(value), str(value)).split(" ")
            return " ".join(modality_label(word) if word in MODALITIES else word for word in words)
        case "arm":
            return ARM_NAMES.get(str(value), str(value))
    return str(value)


def row_title(labels: Mapping[str, Any]) -> str:
    """A row's labels in a line; those that say nothing are left out."""
    if "fold" in labels:
        return "all folds" if labels["fold"] == WHOLE else f"fold {labels['fold']}"
    return ", ".join(said for name in labels if (said := worded(labels, name)))


def subjects_told(n: int, *, patients_known: bool) -> str:
    """Whom n counts: patients, or images where nobody knows whose they are."""
    return counted(n, "test patient") if patients_known else f"{counted(n, 'test image')}, patients unknown"


def averaged_over(*, patients_known: bool) -> str:
    """What the numbers of a table are."""
    return f"mean, 95% interval over {'test patients' if patients_known else 'test images, patients unknown'}"


def _strength(kind: str, strength: float) -> str:
    """Noise as a share of the tissue's range; of a bias field the largest gain; of gamma its two exponents."""
    factor = math.exp(strength)
    match kind:
        case "bias field":
            return f"gain up to {factor:.2f}"
        case "gamma":
            return f"exponent {factor:.2f} or {1 / factor:.2f}"
        case _:
            return f"{strength:g} of the range"

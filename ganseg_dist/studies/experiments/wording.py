"""Names of rows, labels and test patients in an experiment's table and figure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ganseg_dist.data.cohort import MODALITIES
from ganseg_dist.plural import counted
from ganseg_dist.report.labels import modality_label

SETTINGS = {"percentage": "% of training patients", "patients": "patients trained", "perturbation": "change"}
"""Headers of labels whose own name is not clear enough."""
ARM_NAMES = {"gan": "GAN"}
UNCHANGED = {"as they are": "images as they are"}
SHARED_TRAINING = "folds share training data, which the interval does not count"
WHOLE = "all"
"""Value of the fold label in the row of all folds together."""


def setting(name: str) -> str:
    """A label's header in the table."""
    return SETTINGS.get(name, name)


def worded(labels: Mapping[str, Any], name: str) -> str:
    """One label's value, with its unit; empty where the label has none."""
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
    """A row's labels in a line; empty ones are left out."""
    if "fold" in labels:
        return "all folds" if labels["fold"] == WHOLE else f"fold {labels['fold']}"
    return ", ".join(text for name in labels if (text := worded(labels, name)))


def describe_subjects(n: int, *, patients_known: bool) -> str:
    """Count of test patients, or of test images where their patients are unknown."""
    return counted(n, "test patient") if patients_known else f"{counted(n, 'test image')}, patients unknown"


def averaged_over(*, patients_known: bool) -> str:
    """Caption of a table's numbers: a mean with an interval over patients or images."""
    return f"mean, 95% interval over {'test patients' if patients_known else 'test images, patients unknown'}"


def _strength(kind: str, strength: float) -> str:
    """Strength in words: a bias field's largest gain, gamma's two exponents, noise as a share of the range."""
    factor = math.exp(strength)
    match kind:
        case "bias field":
            return f"gain up to {factor:.2f}"
        case "gamma":
            return f"exponent {factor:.2f} or {1 / factor:.2f}"
        case _:
            return f"{strength:g} of the range"

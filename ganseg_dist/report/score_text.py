"""How scores, regions, losses and numbers are written on a page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime

from ganseg_dist.data.cohort import MODALITIES, are_of_pictures
from ganseg_dist.metrics.registry import SCORES, find_score
from ganseg_dist.metrics.statistics import Interval, PairedComparison

REGIONS = {"wt": "Whole tumour", "tc": "Tumour core", "et": "Enhancing tumour"}

NOTHING = "–"
"""In place of a missing number."""

TOO_FEW = "too few patients to compare"

MAIN_SCORES = ("dice", "hd95_mm", "hd95_px", "sensitivity", "foreground_specificity", "lesion_dice", "lesion_f1")
"""Scores shown at once; the others are one click away."""

CASE_SCORES = ("dice", "hd95_mm", "hd95_px", "lesion_f1")
"""Columns of the table of cases, which must still fit a screen for three regions."""


def region_label(region: str, regions: Sequence[str], modalities: Sequence[str]) -> str:
    """The region's name on a page.

    With `wt` as the only region there are no parts of a tumour, so it is called Tumour; for pictures it is called
    Foreground, because their layout does not define the foreground.
    """
    if tuple(regions) == ("wt",):
        return "Foreground" if modalities and are_of_pictures(modalities) else "Tumour"
    return REGIONS.get(region, region)


def lesion_free(regions: Sequence[str], modalities: Sequence[str]) -> str:
    """The adjective of slices without a lesion, from the region's label: `tumour-free`."""
    return f"{region_label('wt', regions, modalities).removeprefix('Whole ').lower()}-free"


def modality_label(modality: str) -> str:
    """The field's spelling of a modality that ganseg knows; other names, from a manifest, are unchanged."""
    return "T1ce" if modality == "t1ce" else modality.upper() if modality in MODALITIES else modality


def score_label(score: str) -> str:
    """`wt/hd95_mm`, `dice_wt` or `hole_l1` in words, without the region. Raises ConfigError for an unknown score."""
    spec = find_score(score)
    unit = next((unit for unit in spec.units if score.endswith(f"_{unit}")), "")
    return f"{spec.label}, {unit}" if unit else spec.label


def term_label(term: str) -> str:
    """A loss term in words; one that is a score too, such as cross-entropy, as the score is called."""
    return SCORES[term].label if term in SCORES else term.replace("_", " ")


def score_in_words(score: str, region: str) -> str:
    """`wt/dice` and Whole tumour as `Dice of the whole tumour`; without a region, the score's label."""
    of = f" of the {in_a_sentence(region)}" if region and "/" in score else ""
    return f"{score_label(score)}{of}"


def capitalised(name: str) -> str:
    """With an upper-case first letter, and the others unchanged."""
    return f"{name[:1].upper()}{name[1:]}"


def in_a_sentence(label: str) -> str:
    """A label inside a sentence: its first letter is lower case, except in names (Dice, Youden) and abbreviations."""
    return (
        label
        if label == "Dice" or label[1:] != label[1:].lower() or label[1:2].isdigit()
        else f"{label[0].lower()}{label[1:]}"
    )


def direction(score: str) -> str:
    """An arrow towards better values; empty where neither is better. Raises ConfigError for an unknown score."""
    return {"max": "↑", "min": "↓", None: ""}[find_score(score).mode]


def better_in_words(score: str) -> str:
    """`higher is better` or `lower is better`; empty where neither direction is better."""
    return {"max": "higher is better", "min": "lower is better", None: ""}[find_score(score).mode]


def verdict(compared: PairedComparison, score: str) -> str | None:
    """`better`, `worse` or `no difference shown`, by the direction of the score; None of too few patients."""
    if not compared.differs:
        return None if compared.differs is None else "no difference shown"
    return "better" if (compared.difference.mean > 0) == (find_score(score).mode == "max") else "worse"


def number(value: float | None, score: str = "") -> str:
    """With the decimals of the score, three without a score; a dash for None, NaN and infinity."""
    if value is None or not math.isfinite(value):
        return NOTHING
    decimals = find_score(score).decimals if score else 3
    rounded = round(value, decimals) or 0.0  # no minus before a zero
    return f"{rounded:.{decimals}f}".replace("-", "−")


def between(value: Interval, score: str = "", *, signed: bool = False) -> str:
    """An interval's ends, `0.701 to 0.812`; a dash where there is no interval, as with one patient."""
    if not value.known:
        return NOTHING
    return " to ".join(signed_number(end, score) if signed else number(end, score) for end in (value.low, value.high))


def signed_number(value: float, score: str = "") -> str:
    """A difference, with its sign."""
    return ("+" if value > 0 else "") + number(value, score)


def interval_text(value: Interval, score: str = "") -> str:
    """`95% 0.701 to 0.812, n = 9`."""
    return f"95% {between(value, score)}, n = {value.n}"


def p_value(p: float | None) -> str:
    """Three decimals, `< 0.001` below that; a dash for None."""
    if p is None:
        return NOTHING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def moment(written: str | None) -> str | None:
    """A time in ISO 8601 to the minute, with its zone; other text as it is."""
    try:
        return f"{datetime.fromisoformat(written):%Y-%m-%d %H:%M %Z}".strip() if written else None
    except ValueError:
        return written


def byte_size(n: float) -> str:
    """`1.5 MB`, in powers of 1000."""
    for unit in ("bytes", "kB", "MB"):
        if n < 1000:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:.3g} GB" if n < 1000 else f"{n:,.0f} GB"


def joined(names: Sequence[str]) -> str:
    """`a, b and c`."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last

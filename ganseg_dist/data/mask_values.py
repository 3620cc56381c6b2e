"""From the values stored in a mask file to our label values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ganseg_dist.data.cohort import Case
from ganseg_dist.data.colours import colour_channels
from ganseg_dist.data.formats import Volume, is_nifti
from ganseg_dist.data.grid import Flaw
from ganseg_dist.data.labels import Labels
from ganseg_dist.data.picture import is_lossy

WHITE = (2**8 - 1, 2**16 - 1)
"""What a black-and-white picture of 8 or 16 bits stores for 1."""


def translate_labels(raw: Volume, case: Case) -> tuple[Labels, tuple[int, ...], Flaw | None]:
    """Our label values of a mask as stored; the known stored values that it holds; and a flaw that lists unknown ones.

    The stored values are in the order of the case's labels, without background.
    """
    meanings = case.labels
    if case.mask is not None and _is_black_and_white(case, raw):
        meanings = {0: 0, **dict.fromkeys(WHITE, 1)}
    elif case.mask is not None and case.mask.reads == "colour code" and is_lossy(case.mask.files[0]):
        raw = _nearest_code(raw, tuple(meanings))
    labels = np.zeros(raw.shape, np.uint8)
    known = np.zeros(raw.shape, bool)
    present = []
    for stored, label in meanings.items():
        matches = raw == stored
        labels[matches] = label
        known |= matches
        if stored and matches.any():
            present.append(stored)
    return labels, tuple(present), _flaw(np.unique(raw[~known]).tolist(), tuple(meanings), case)


def _flaw(unknown: Sequence[float], known: Sequence[int], case: Case) -> Flaw | None:
    if not unknown:
        return None
    in_colour = case.mask is not None and case.mask.reads == "colour code"
    text_of = _as_rgb if in_colour else "{:.0f}".format
    values = ", ".join(text_of(value) for value in unknown[:5]) + (", ..." if len(unknown) > 5 else "")
    problem = f"unknown label values {values}; known are {', '.join(text_of(value) for value in known)}"
    remedy = "add these colours to labels.json" if in_colour else "recode the mask, or state its scheme with --labels"
    return Flaw("labels", problem, remedy)


def _is_black_and_white(case: Case, raw: Volume) -> bool:
    """Whether a binary mask is a picture that writes white for 1."""
    is_picture = case.mask is not None and not is_nifti(case.mask.files[0])
    return is_picture and set(case.labels) == {0, 1} and bool(np.isin(WHITE, raw).any())


def _nearest_code(codes: Volume, known: Sequence[int]) -> Volume:
    """Each pixel's nearest known colour, by the distance between their channels."""
    palette = np.array([colour_channels(code) for code in known])
    distinct, inverse = np.unique(codes, return_inverse=True)
    distances = np.linalg.norm(np.array([colour_channels(int(code)) for code in distinct])[:, None] - palette, axis=2)
    nearest = np.array(known, np.float32)[distances.argmin(axis=1)]
    return np.asarray(nearest[inverse].reshape(codes.shape))


def _as_rgb(code: float) -> str:
    return str(colour_channels(int(code)))

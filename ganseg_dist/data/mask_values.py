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
"""What a picture in black and white of 8 or 16 bits stores for 1."""


def translate_labels(raw: Volume, case: Case) -> tuple[Labels, tuple[int, ...], Flaw | None]:
    """A mask as stored to our label values; which stored values it holds; and those that have no meaning there.

    Of the first, background is left out, in the order of the case's labels.
    """
    meanings = case.labels
    if case.mask is not None and _is_black_and_white(case, raw):
        meanings = {0: 0, **dict.fromkeys(WHITE, 1)}
    elif case.mask is not None and case.mask.reads == "colour code" and is_lossy(case.mask.files[0]):
        raw = _nearest_code(raw, tuple(meanings))
    labels = np.zeros(raw.shape, np.uint8)
    known = np.zeros(raw.shape, bool)
    held = []
    for stored, ours in meanings.items():
        here = raw == stored
        labels[here] = ours
        known |= here
        if stored and here.any():
            held.append(stored)
    return labels, tuple(held), _flaw(np.unique(raw[~known]).tolist(), tuple(meanings), case)


def _flaw(strange: Sequence[float], known: Sequence[int], case: Case) -> Flaw | None:
    if not strange:
        return None
    in_colour = case.mask is not None and case.mask.reads == "colour code"
    written = _as_rgb if in_colour else "{:.0f}".format
    values = ", ".join(written(value) for value in strange[:5]) + (", ..." if len(strange) > 5 else "")
    problem = f"unknown label values {values}; known are {', '.join(written(value) for value in known)}"
    remedy = "add these colours to labels.json" if in_colour else "recode the mask, or state its scheme with --labels"
    return Flaw("labels", problem, remedy)


def _is_black_and_white(case: Case, raw: Volume) -> bool:
    """Whether a binary mask is a picture that writes white for 1."""
    is_picture = case.mask is not None and not is_nifti(case.mask.files[0])
    return is_picture and set(case.labels) == {0, 1} and bool(np.isin(WHITE, raw).any())


def _nearest_code(codes: Volume, known: Sequence[int]) -> Volume:
    """Each pixel's nearest known colour, by the distance between their channels."""
    palette = np.array([colour_channels(code) for code in known])
    found, where = np.unique(codes, return_inverse=True)
    apart = np.linalg.norm(np.array([colour_channels(int(code)) for code in found])[:, None] - palette, axis=2)
    nearest = np.array(known, np.float32)[apart.argmin(axis=1)]
    return np.asarray(nearest[where].reshape(codes.shape))


def _as_rgb(code: float) -> str:
    return str(colour_channels(int(code)))

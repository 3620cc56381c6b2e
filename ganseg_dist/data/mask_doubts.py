"""Masks that can be read and hardly mark a lesion: inverted ones, ones that cover most, ones in the background."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ganseg_dist.data.foreground import Mask
from ganseg_dist.data.formats import Volume
from ganseg_dist.data.grid import Flaw

MOST_OF_PICTURE = 0.8
"""Share of a picture; dense nuclei cover half of one, a skin lesion up to three quarters."""

MOST_OF_BODY = 0.5
"""Share of a scan's body, of which a lesion is a small part."""

MOST_OUTSIDE = 0.5
"""Share of a mask that may lie in the background."""

MOST_OF_BORDER = 0.9
"""Share of the outermost pixels of a mask that is not inverted: a lesion ends somewhere."""

FEWEST_SHADES = 3
"""Grey levels between black and white of a soft edge; a drawing has one a structure."""

MOST_FLAT_SHADES = 0.01
"""Share of their pixels whose neighbours are alike: of structures, all but their edges."""

NEARLY_ALL = 0.999
"""Share of a picture that leaves no lesion to be inverted."""


def mask_doubt(drawn: Mask, body: Mask | None, *, is_picture: bool) -> Flaw | None:
    """What is implausible about where a mask, which is not empty, lies.

    Args:
        drawn: (X, Y, Z), what it marks.
        body: (X, Y, Z), what is not background in the image; None where that is everything, or not known.
        is_picture: whether the image need not be of a head.
    """
    share = float(drawn.mean())
    where = "picture" if is_picture else "volume"
    if 0.5 < share < NEARLY_ALL and _border(drawn) > MOST_OF_BORDER:
        problem = f"the mask looks inverted: it covers {share:.0%} of the {where} and all along its border"
        return Flaw("inverted-mask", problem, "invert it if the lesion is black on white")
    outside = share_outside(drawn, body)
    if outside > MOST_OUTSIDE and is_picture:
        remedy = "check that the mask belongs to this image; data.intensities=colour takes in the whole picture"
        return Flaw("mask-outside", f"{outside:.0%} of the mask lies in what looks like background", remedy)
    if outside > MOST_OUTSIDE:
        problem = f"{outside:.0%} of the mask lies outside the head or brain"
        return Flaw("mask-outside", problem, "check that the mask belongs to this case")
    if not is_picture and body is not None:
        share, where = float(drawn[body].mean()), "head or brain"
    if share > (MOST_OF_PICTURE if is_picture else MOST_OF_BODY):
        return Flaw("large-mask", f"the mask covers {share:.0%} of the {where}", "check that it marks the lesion alone")
    return None


def has_soft_edges(values: Volume) -> bool:
    """Whether a mask (X, Y, Z), drawn slice by slice along Z, fades out: shades below its brightest, at edges alone."""
    between = (values > 0) & (values < values.max(initial=0))
    if len(np.unique(values[between])) < FEWEST_SHADES:
        return False
    reach = ndimage.maximum_filter(values, (3, 3, 1)) - ndimage.minimum_filter(values, (3, 3, 1))
    return bool((reach[between] == 0).mean() < MOST_FLAT_SHADES)


def share_outside(drawn: Mask, body: Mask | None) -> float:
    """How much of what a mask marks is background in the image."""
    return float((~body)[drawn].mean()) if body is not None else 0.0


def _border(drawn: Mask) -> float:
    """Share of the outermost voxels that it marks, along axes of which some are not outermost."""
    inner = np.zeros(drawn.shape, bool)
    inner[tuple(slice(1, -1) if length > 2 else slice(None) for length in drawn.shape)] = True
    return float(drawn[~inner].mean()) if not inner.all() else 0.0

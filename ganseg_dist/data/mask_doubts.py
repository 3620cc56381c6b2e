"""Doubts about readable masks: inverted ones, ones that cover most of the image, ones in the background."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ganseg_dist.data.foreground import Mask
from ganseg_dist.data.grid import Flaw, Volume

MOST_OF_PICTURE = 0.8
"""Share of a picture; dense nuclei cover half of one, a skin lesion up to three quarters."""

MOST_OF_BODY = 0.5
"""Share of a scan's foreground, of which a lesion is a small part."""

MOST_OUTSIDE = 0.5
"""Share of a mask that may lie in the background."""

MOST_OF_BORDER = 0.9
"""Largest share of the outermost pixels that a mask marks unless it is inverted."""

FEWEST_SHADES = 3
"""Least grey levels between black and white of a soft edge; a mask without soft edges has one per structure."""

MOST_FLAT_SHADES = 0.01
"""Largest share of a soft edge's pixels whose neighbours are equal; in a structure, all but its edges are."""

NEARLY_ALL = 0.999
"""A mask that covers more than this share is not called inverted: it leaves no lesion."""


def mask_doubt(mask: Mask, foreground: Mask | None, *, is_picture: bool) -> Flaw | None:
    """What is implausible about the place of a mask (X, Y, Z) that is not empty; None where nothing is.

    `foreground`, (X, Y, Z), is the image without its background; None where that is everything, or unknown. A picture
    may show something other than a head.
    """
    share = float(mask.mean())
    where = "picture" if is_picture else "volume"
    if 0.5 < share < NEARLY_ALL and _border(mask) > MOST_OF_BORDER:
        problem = f"the mask may be inverted: it covers {share:.0%} of the {where} and all along its border"
        return Flaw("inverted-mask", problem, "invert it if the lesion is black on white")
    outside = share_outside(mask, foreground)
    if outside > MOST_OUTSIDE and is_picture:
        remedy = "check that the mask belongs to this image; data.intensities=colour takes in the whole picture"
        return Flaw("mask-outside", f"{outside:.0%} of the mask lies in the detected background", remedy)
    if outside > MOST_OUTSIDE:
        problem = f"{outside:.0%} of the mask lies outside the head or brain"
        return Flaw("mask-outside", problem, "check that the mask belongs to this case")
    if not is_picture and foreground is not None:
        share, where = float(mask[foreground].mean()), "head or brain"
    if share > (MOST_OF_PICTURE if is_picture else MOST_OF_BODY):
        return Flaw("large-mask", f"the mask covers {share:.0%} of the {where}", "check that it marks the lesion alone")
    return None


def has_soft_edges(values: Volume) -> bool:
    """Whether a mask (X, Y, Z) of slices along Z has soft edges: shades below its brightest, and only at edges."""
    between = (values > 0) & (values < values.max(initial=0))
    if len(np.unique(values[between])) < FEWEST_SHADES:
        return False
    contrast = ndimage.maximum_filter(values, (3, 3, 1)) - ndimage.minimum_filter(values, (3, 3, 1))
    return bool((contrast[between] == 0).mean() < MOST_FLAT_SHADES)


def share_outside(mask: Mask, foreground: Mask | None) -> float:
    """Share of a mask's voxels that are background in the image."""
    return float((~foreground)[mask].mean()) if foreground is not None else 0.0


def _border(mask: Mask) -> float:
    """Share of the outermost voxels that the mask marks, over the axes longer than 2."""
    inner = np.zeros(mask.shape, bool)
    inner[tuple(slice(1, -1) if length > 2 else slice(None) for length in mask.shape)] = True
    return float(mask[~inner].mean()) if not inner.all() else 0.0

"""Evenly spaced places, wherever some of many are looked at."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def evenly_spaced(count: int, most: int) -> npt.NDArray[np.int64]:
    """Up to `most` of the places 0 .. count - 1 in order, with the first and the last; all where there are fewer."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))

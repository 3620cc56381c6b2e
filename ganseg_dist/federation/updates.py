"""What training changes of the weights that the server sent."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from ganseg_dist.federation.shared_parameters import Arrays

Change = dict[str, npt.NDArray[np.float64]]
"""A difference of weights, by name, in float64, in which no square of a float32 overflows."""


def change_of(weights: Arrays, sent: Arrays) -> Change:
    """The weights less those that were sent, which have at least their names."""
    return {name: np.subtract(array, sent[name], dtype=np.float64) for name, array in weights.items()}


def norm_of(change: Change) -> float:
    """The norm of all tensors as one vector."""
    return math.sqrt(sum(float(np.vdot(part, part)) for part in change.values()))

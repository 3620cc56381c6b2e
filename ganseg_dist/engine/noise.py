"""Chance that nobody can foretell or make again: differential privacy is worth what its chance is worth.

A run's seed is written into its config, and the generators of numpy and torch can be run backwards from what they gave:
neither may be used here. What is drawn is made of the operating system's own random bytes, which are kept nowhere.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

Entropy = Callable[[int], bytes]
"""So many unforeseeable bytes."""


def normal_noise(shape: tuple[int, ...], deviation: float, entropy: Entropy = os.urandom) -> npt.NDArray[np.float64]:
    """Independent N(0, deviation^2) values.

    Each is made of 64 bits by the inverse of the distribution function: one for the sign, 63 for how far out it lies in
    its half. So the values are as fine near 0 as float64 is, and reach 9.1 deviations, which fewer than one in 10^19
    pass. They are still floats, and not all of the real line: see the decision on differential privacy.
    """
    words = np.frombuffer(entropy(8 * math.prod(shape)), np.uint64)
    tail = ((words >> np.uint64(1)).astype(np.float64) + 0.5) * 2.0**-64  # in (0, 1/2]
    sign = np.where(words & np.uint64(1), 1.0, -1.0)
    return np.asarray(-ndtri(tail) * sign * deviation).reshape(shape)


def chosen(shape: tuple[int, ...], rate: float, entropy: Entropy = os.urandom) -> npt.NDArray[np.bool_]:
    """Each true by itself with this probability, to 2^-53."""
    words = np.frombuffer(entropy(8 * math.prod(shape)), np.uint64)
    return np.asarray((words >> np.uint64(11)).astype(np.float64) * 2.0**-53 < rate).reshape(shape)


def secret_key(entropy: Entropy = os.urandom) -> int:
    """Of a generator whose values are not released: 128 bits."""
    return int.from_bytes(entropy(16), "little")

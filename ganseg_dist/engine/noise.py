"""Random numbers that no one can predict or repeat: the guarantee of differential privacy depends on them.

A run's seed is in its config, and the states of numpy's and torch's generators can be recovered from their output:
neither may be used here. All samples come from the operating system's random bytes, which are not stored.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

Entropy = Callable[[int], bytes]
"""Returns this number of unpredictable bytes."""


def normal_noise(shape: tuple[int, ...], deviation: float, entropy: Entropy = os.urandom) -> npt.NDArray[np.float64]:
    """Independent N(0, deviation^2) values.

    Each is made of 64 bits by the inverse of the distribution function: one for the sign, 63 for the tail probability.
    So the values are as fine near 0 as float64 is, and reach 9.1 deviations, which fewer than one in 10^19 exceed.
    They are still floats, not real numbers: see the decision on differential privacy.
    """
    words = np.frombuffer(entropy(8 * math.prod(shape)), np.uint64)
    tail = ((words >> np.uint64(1)).astype(np.float64) + 0.5) * 2.0**-64  # in (0, 1/2]
    sign = np.where(words & np.uint64(1), 1.0, -1.0)
    return np.asarray(-ndtri(tail) * sign * deviation).reshape(shape)


def chosen(shape: tuple[int, ...], rate: float, entropy: Entropy = os.urandom) -> npt.NDArray[np.bool_]:
    """Each true independently with this probability, to 2^-53."""
    words = np.frombuffer(entropy(8 * math.prod(shape)), np.uint64)
    return np.asarray((words >> np.uint64(11)).astype(np.float64) * 2.0**-53 < rate).reshape(shape)


def secret_key(entropy: Entropy = os.urandom) -> int:
    """Seed of 128 bits for a generator whose values are not released."""
    return int.from_bytes(entropy(16), "little")

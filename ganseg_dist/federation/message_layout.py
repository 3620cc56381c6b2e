"""The content that a message of one kind may have, and the check of a message against it before it is decoded.

The other end chose every name, type, shape and byte of a message. What is expected is known beforehand, so a message is
compared with it and never interpreted; its arrays are views of the received bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ganseg_dist.errors import FederationError
from ganseg_dist.federation.npy import header, view
from ganseg_dist.federation.protocol import Layout, check_names

NPY = "numpy.ndarray"
"""Flower's name of the .npy format; it has no other that travels."""
MOST_ARRAYS = 10_000
"""In one message of weights."""
MOST_AXES = 8
LARGEST_AXIS = 2**32


class PackedArray(Protocol):
    """An array as it travels: Flower's `Array`."""

    dtype: str
    shape: tuple[int, ...]
    stype: str
    """Format of the data."""
    data: bytes


@dataclass(frozen=True, slots=True)
class Range:
    """The values that a number of a message may have."""

    least: float
    most: float
    whole: bool = False
    needed: bool = False
    """Whether a message without the number is rejected."""

    def __contains__(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        # A comparison with NaN is false.
        return self.least <= value <= self.most and (not self.whole or value == int(value))

    def __str__(self) -> str:
        return f"{'whole ' * self.whole}number from {self.least:g} to {self.most:g}"


@dataclass(frozen=True, slots=True)
class MessageLayout:
    """Exactly these arrays and texts, and no numbers but these."""

    agreed: str
    """What must be equal at both ends for the message to fit, for errors."""
    arrays: Layout = field(default_factory=dict)
    texts: Mapping[str, int] = field(default_factory=dict)
    """Of arrays that hold a text in UTF-8, the largest number of bytes by name."""
    numbers: Mapping[str, Range] = field(default_factory=dict)

    def read_arrays(self, packed: Mapping[str, PackedArray]) -> dict[str, npt.NDArray[Any]]:
        """The arrays by name. Raises FederationError unless they are exactly those of the layout."""
        check_names(packed, {*self.arrays, *self.texts}, "arrays", self.remedy)
        arrays: dict[str, npt.NDArray[Any]] = {}
        for name, (dtype, shape) in self.arrays.items():
            try:
                arrays[name] = unpack(packed[name], dtype, shape)
            except ValueError as error:
                raise FederationError(f"{name}: {error}; {self.remedy}") from None
        for name, most in self.texts.items():
            length = len(packed[name].data) - len(header(np.uint8, (most,)))
            try:
                if not 0 < length <= most:
                    raise ValueError
                arrays[name] = unpack(packed[name], np.uint8, (length,))
            except ValueError:
                raise FederationError(f"{name}: is no text of 1 to {most} bytes; {self.remedy}") from None
        return arrays

    def read_numbers(self, numbers: Mapping[str, object]) -> dict[str, float]:
        """The numbers by name. Raises FederationError for one that is not in the layout, out of range or missing."""
        check_names(numbers, self.numbers, "numbers", self.remedy, {n for n, r in self.numbers.items() if r.needed})
        values: dict[str, float] = {}
        for name, value in numbers.items():
            if value not in self.numbers[name]:
                raise FederationError(f"{name}: is no {self.numbers[name]}; {self.remedy}")
            assert isinstance(value, int | float)
            values[name] = value
        return values

    @property
    def remedy(self) -> str:
        """The second half of an error."""
        return f"both ends must run the same {self.agreed}"


def unpack(packed: PackedArray, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """A view of the array of this type and shape. Raises ValueError for anything else."""
    if (packed.stype, packed.dtype, packed.shape) != (NPY, str(np.dtype(dtype)), shape):
        raise ValueError(f"is not {np.dtype(dtype)} {shape} as expected")
    return view(packed.data, dtype, shape)


def unpack_weights(packed: Mapping[str, PackedArray]) -> dict[str, npt.NDArray[np.float32]]:
    """The float32 arrays of a message, of the shapes that it states; `SharedParameters.check` compares those.

    Raises FederationError for arrays of another type, or whose bytes are not those of their shape.
    """
    if len(packed) > MOST_ARRAYS:
        raise FederationError(f"message: holds more than {MOST_ARRAYS} arrays; both ends must run the same version")
    try:
        return {name: unpack(array, np.float32, _possible(array.shape)) for name, array in packed.items()}
    except ValueError:
        raise FederationError(
            "message: holds arrays that are no weights; both ends must run the same version"
        ) from None


def _possible(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape. Raises ValueError for one that no weights have."""
    if len(shape) > MOST_AXES or not all(type(length) is int and 0 <= length <= LARGEST_AXIS for length in shape):
        raise ValueError("is no shape of weights")
    return shape

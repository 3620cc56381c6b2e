"""Arrays in NumPy's .npy format, in which they travel, read without parsing a header that another party wrote."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import numpy.typing as npt

Shape = tuple[int, ...]


def header(dtype: npt.DTypeLike, shape: Shape) -> bytes:
    """What `np.save` writes before the values of an array in C order of this type and shape."""
    written = io.BytesIO()
    fields = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(written, fields)
    return written.getvalue()


def view(data: bytes, dtype: npt.DTypeLike, shape: Shape) -> npt.NDArray[Any]:
    """The array of this type and shape in what `np.save` wrote of it: a read-only view, which allocates nothing.

    Type and shape are known beforehand, so the header is compared byte for byte. `np.load` would evaluate it as Python,
    and allocate what it claims. Raises ValueError for any other bytes.
    """
    start, kind = header(dtype, shape), np.dtype(dtype)
    if len(data) != len(start) + math.prod(shape) * kind.itemsize or not data.startswith(start):
        raise ValueError(f"is not {kind} {shape} as np.save writes it")
    if len(data) == len(start):
        return np.zeros(shape, kind)
    return np.frombuffer(data, kind, offset=len(start)).reshape(shape)

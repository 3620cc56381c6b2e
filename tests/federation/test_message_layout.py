"""A message is compared with what is expected of it; nothing that another party wrote is interpreted."""

import io
import math
import tracemalloc
import zipfile

import numpy as np
import pytest
from flwr.app import Array

from ganseg_dist.errors import FederationError
from ganseg_dist.federation.message_layout import MOST_ARRAYS, MessageLayout, Range, unpack_weights
from ganseg_dist.federation.npy import header, view

VALUES = np.arange(6, dtype=np.float32).reshape(2, 3)
LAYOUT = MessageLayout("version", {"w": (np.float32, (2, 3))})


def saved(array: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, **options)
    return file.getvalue()


def zipped() -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, w=VALUES)
    return file.getvalue()


def bomb() -> bytes:
    """A .npz file of 100 kB that holds 100 MB."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w.npy", bytes(10**8))
    return file.getvalue()


def claiming(text: str, data: bytes = bytes(24)) -> bytes:
    """An .npy file with this header."""
    encoded = text.encode("latin1")
    return b"\x93NUMPY\x01\x00" + len(encoded).to_bytes(2, "little") + encoded + data


def packed(data: bytes, dtype="float32", shape=(2, 3), stype="numpy.ndarray") -> dict[str, Array]:
    return {"w": Array(dtype, shape, stype, data)}


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3), (2, 0, 3), (1, 1)])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int8, np.uint32, np.int64, np.uint8])
def test_view_reads_arrays_of_np_save(dtype, shape):
    array = np.arange(math.prod(shape)).reshape(shape).astype(dtype)
    file = io.BytesIO()
    np.save(file, array)
    found = view(file.getvalue(), dtype, shape)
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(found, array)
    assert len(header(dtype, shape)) + array.nbytes == len(file.getvalue())


HOSTILE = {
    "10^6 x 10^6": claiming("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000), }\n"),
    "a broken header": claiming("{'descr': '<f4', 'fortran_order'"),
    "a deep header": claiming("[" * 60000),
    "operators": claiming("{'descr': '<f4', 'fortran_order': False, 'shape': (" + "-" * 5000 + "1,)}"),
    "a negative shape": claiming("{'descr': '<f4', 'fortran_order': False, 'shape': (-2, -3), }\n"),
    "objects": saved(np.array([None] * 6).reshape(2, 3), allow_pickle=True),
    "a pickle": b"\x80\x04N.",
    "npz": zipped(),
    "an npz bomb": bomb(),
    "Fortran order": saved(np.asfortranarray(VALUES)),
    "big endian": saved(VALUES.astype(">f4")),
    "another version": saved(VALUES, version=(2, 0)),
    "a byte more": saved(VALUES) + b"\0",
    "a byte less": saved(VALUES)[:-1],
    "the header alone": header(np.float32, (2, 3)),
    "nothing": b"",
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_read_arrays_rejects_other_bytes_without_allocating(data):
    tracemalloc.start()
    try:
        with pytest.raises(FederationError) as caught:
            LAYOUT.read_arrays(packed(data))
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
    assert str(caught.value) == "w: is not float32 (2, 3) as np.save writes it; both ends must run the same version"
    with pytest.raises(FederationError):
        unpack_weights(packed(data))


@pytest.mark.parametrize(
    "stated", [{"dtype": "float64"}, {"shape": (3, 2)}, {"shape": (10**6, 10**6)}, {"stype": "pickle"},
               {"dtype": "\x1b[2J"}],
)  # fmt: skip
def test_read_arrays_rejects_other_statement_about_right_bytes(stated):
    np.testing.assert_array_equal(LAYOUT.read_arrays(packed(saved(VALUES)))["w"], VALUES)
    with pytest.raises(FederationError, match=r"^w: is not float32 \(2, 3\) as expected; both ends"):
        LAYOUT.read_arrays(packed(saved(VALUES), **stated))


def test_read_arrays_counts_unknown_names():
    with pytest.raises(FederationError, match=r"^message: holds arrays that are not expected \(1\); both ends"):
        LAYOUT.read_arrays({**packed(saved(VALUES)), "patient Novak": Array(VALUES)})
    with pytest.raises(FederationError, match=r"^message: lacks w; both ends"):
        LAYOUT.read_arrays({})


def test_read_arrays_bounds_texts():
    layout = MessageLayout("version", texts={"description": 5})
    for text in (b"a", b"hello"):
        read = layout.read_arrays({"description": Array(np.frombuffer(text, np.uint8))})
        assert read["description"].tobytes() == text
    for array in (np.zeros(0, np.uint8), np.zeros(6, np.uint8), np.zeros(5, np.int8), np.zeros((1, 5), np.uint8)):
        with pytest.raises(FederationError, match=r"^description: is no text of 1 to 5 bytes; both ends"):
            layout.read_arrays({"description": Array(array)})


def test_unpack_weights_takes_any_shape_of_float32():
    arrays = {"a": VALUES, "b": np.array(3, np.float32), "c": np.zeros((0, 2), np.float32)}
    read = unpack_weights({name: Array(array) for name, array in arrays.items()})
    assert {name: array.shape for name, array in read.items()} == {"a": (2, 3), "b": (), "c": (0, 2)}


@pytest.mark.parametrize("shape", [(1,) * 9, (-2, -3), (2**40,), (True, 6), (10**6,) * 8])
def test_unpack_weights_rejects_impossible_shapes(shape):
    with pytest.raises(FederationError, match="holds arrays that are no weights"):
        unpack_weights(packed(saved(VALUES), shape=shape))


def test_unpack_weights_bounds_number_of_arrays():
    array = Array(VALUES)
    with pytest.raises(FederationError, match=f"more than {MOST_ARRAYS} arrays"):
        unpack_weights(dict.fromkeys(map(str, range(MOST_ARRAYS + 1)), array))


NUMBERS = MessageLayout(
    "version", numbers={"cases": Range(1, 10, whole=True, needed=True), "dice": Range(0, 1), "loss": Range(-1e15, 1e15)}
)


def test_read_numbers_accepts_those_in_range():
    for numbers in ({"cases": 1}, {"cases": 10.0, "dice": 1.0, "loss": -3}, {"cases": 3, "dice": 0}):
        assert NUMBERS.read_numbers(numbers) == numbers


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("cases", value) for value in (0, -1, 11, 10**15, 10**400, 2.5, math.inf, math.nan, True, [1, 2], "3", None)),
        *(("dice", value) for value in (-0.01, 1.01, math.inf, -math.inf, math.nan, [0.5])),
        *(("loss", value) for value in (1e16, -1e16, 1e308, math.nan)),
    ],
)
def test_read_numbers_rejects_those_out_of_range(name, value):
    with pytest.raises(FederationError, match=rf"^{name}: is no (whole )?number from .* to .*; both ends") as caught:
        NUMBERS.read_numbers({"cases": 1, name: value})
    assert "\n" not in str(caught.value)


def test_read_numbers_rejects_missing_and_unknown_names():
    with pytest.raises(FederationError, match=r"^message: lacks cases; both ends"):
        NUMBERS.read_numbers({"dice": 0.5})
    forged = {"cases": 1, "x\nfinished: /all/good": 1.0, "\x1b[2J": 2.0}
    with pytest.raises(FederationError, match=r"^message: holds numbers that are not expected \(2\); both ends"):
        NUMBERS.read_numbers(forged)

"""A NIfTI file's voxels and their grid."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.fileholders import FileHolder
from nibabel.openers import ImageOpener

from ganseg_dist.data.grid import Grid, Volume, as_float, shape_of
from ganseg_dist.data.listing import decoding, quiet
from ganseg_dist.data.nifti_header import UNIT_OF_LENGTH, affine_of
from ganseg_dist.errors import DataError

TRANSFORMS = (
    "qform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z",
    "sform_code", "srow_x", "srow_y", "srow_z",
)  # fmt: skip
"""Header fields that place the voxels, apart from their sizes."""
LABEL_INTENT = 1002
"""NIFTI_INTENT_LABEL: voxels hold label values."""


@contextmanager
def open_nifti(path: Path) -> Iterator[tuple[Any, ImageOpener]]:
    """The class of image that a file holds, NIfTI-1 or 2, and its stream, at the beginning.

    The class is read from the file's header and not from its name, as nibabel changes .Nii to .nii. Raises DataError
    naming a file that cannot be read, also where reading fails later in the block.
    """
    with decoding(path, "NIfTI file"), quiet("nibabel.global"), ImageOpener(path) as stream:
        header = stream.read(nib.Nifti2Header.sizeof_hdr)
        stream.seek(0)
        for kind in (nib.Nifti1Image, nib.Nifti2Image):
            if kind.header_class.may_contain_header(header):
                yield kind, stream
                return
        raise ValueError("it does not begin with a NIfTI header")


def nifti_channels(path: Path) -> int:
    """How many volumes a file holds. Raises DataError naming a file that cannot be read."""
    with open_nifti(path) as (kind, stream):
        return _channels(path, kind.header_class.from_fileobj(stream).get_data_shape())


def load_nifti(path: Path, channel: int | None) -> tuple[Volume, Grid]:
    """One channel's voxels and their grid; a large 4-D file is never in memory whole."""
    with open_nifti(path) as (kind, stream):
        stored_sizes = kind.header_class.from_fileobj(stream, check=False)["pixdim"][1:4]
        stream.seek(0)
        image = kind.from_file_map({"image": FileHolder(fileobj=stream)})
        index = _channel_index(path, image.shape, channel)
        data = as_float(np.asanyarray(image.dataobj[index] if len(image.shape) > 3 else image.dataobj))
        stream.read(1)  # at the end of a compressed file this compares its checksum
        shape = shape_of(path, data)
        return data, Grid(shape, *affine_of(path, image.header, stored_sizes, shape))


def image_like(path: Path, volume: npt.NDArray[Any], *, is_mask: bool) -> Any:
    """An image (X, Y, Z) with the geometry of a file, to be saved.

    Its header has the file's geometry, bit for bit and errors included, and nothing else of the file: text,
    extensions, intents and times may name a patient or a date. Raises DataError naming the file.
    """
    with open_nifti(path) as (kind, stream):
        stored = kind.header_class.from_fileobj(stream, check=False)  # a check would correct it
    header = kind.header_class()
    header.set_data_dtype(volume.dtype)
    header.set_data_shape(volume.shape)
    header["pixdim"][:4] = stored["pixdim"][:4]  # the first is the handedness of the qform
    header["xyzt_units"] = stored["xyzt_units"] & UNIT_OF_LENGTH
    for field in TRANSFORMS:
        header[field] = stored[field]
    header["intent_code"] = LABEL_INTENT if is_mask else 0
    return kind(volume, None, header)  # without an affine, the header's own geometry is written


def same_volumes(path: Path, other: Path) -> bool:
    """Whether two files hold the same voxels, of all channels, in the same place. Raises DataError naming one."""
    with open_nifti(path) as (kind, stream), open_nifti(other) as (other_kind, other_stream):
        first = kind.from_file_map({"image": FileHolder(fileobj=stream)})
        second = other_kind.from_file_map({"image": FileHolder(fileobj=other_stream)})
        same_place = first.shape == second.shape and np.array_equal(first.affine, second.affine)
        volumes = np.asanyarray(first.dataobj), np.asanyarray(second.dataobj)
        return same_place and bool(np.array_equal(*volumes, equal_nan=True))


def _channels(path: Path, shape: tuple[int, ...]) -> int:
    """Channels of (X, Y, Z), (X, Y, Z, C) and vector images' (X, Y, Z, 1, C), with or without further axes of 1."""
    lengths = [length for length in shape[3:] if length != 1]
    if len(lengths) > 1:
        raise DataError(f"{path}: is an array of {shape}; export it as (X, Y, Z) or (X, Y, Z, channels)")
    return int(lengths[0]) if lengths else 1


def _channel_index(path: Path, shape: tuple[int, ...], channel: int | None) -> tuple[slice | int, ...]:
    channels = _channels(path, shape)
    if channels > 1 and channel is None:
        raise DataError(f"{path}: has {channels} channels; name one of them in a manifest, as in FILE#0")
    if channel is not None and channel >= channels:
        raise DataError(f"{path}: has {channels} channel(s), no number {channel}; channels count from 0")
    return (*[slice(None)] * 3, *(0 if length == 1 else (channel or 0) for length in shape[3:]))

"""A NIfTI file's voxels and their grid."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.fileholders import FileHolder
from nibabel.openers import ImageOpener

from ganseg_dist.data.formats import Volume, as_float, decoding
from ganseg_dist.data.grid import Grid, grid_of
from ganseg_dist.errors import DataError


def load_nifti(path: Path, channel: int | None) -> tuple[Volume, Grid]:
    """One channel's voxels and their grid; a large 4-D file is never in memory whole."""
    with decoding(path, "NIfTI file"), ImageOpener(path) as stream:
        image = type(nib.load(path)).from_file_map({"image": FileHolder(fileobj=stream)})
        channels = int(image.shape[3]) if len(image.shape) == 4 else None
        index = 0 if channels == 1 else channel
        if channels is not None and index is None:
            raise DataError(f"{path}: has {channels} channels; name one of them in a manifest, as in FILE#0")
        if channels is not None and index is not None and index >= channels:
            raise DataError(f"{path}: has {channels} channels, no number {channel}; channels count from 0")
        data = as_float(np.asanyarray(image.dataobj if channels is None else image.dataobj[..., index]))
        stream.read(1)  # at the end of a compressed file this compares its checksum
        return data, grid_of(path, data, np.asarray(image.affine, dtype=np.float64))

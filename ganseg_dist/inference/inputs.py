"""What `ganseg predict` accepts: any cohort layout, or single files whose channels are the model's modalities."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib

from ganseg_dist.data.cohort import UNKNOWN_SITE, Case, Source
from ganseg_dist.data.readers import read_cohort
from ganseg_dist.data.scan import PICTURE_SUFFIXES, is_nifti
from ganseg_dist.errors import DataError


def read_inputs(path: Path, modalities: tuple[str, ...], layout: str | None = None) -> tuple[Case, ...]:
    """The cases under a path. Raises DataError when there are none or a modality is missing."""
    if path.is_file() and path.suffix.lower() != ".csv":
        return (_single_file(path, modalities),)
    cases = read_cohort(path, layout).cases
    for case in cases:
        missing = [name for name in modalities if name not in case.images]
        if missing:
            raise DataError(
                f"{case.id}: has no {', '.join(missing)}, which the model needs; it has {', '.join(case.images)}"
            )
    return cases


def _single_file(path: Path, modalities: tuple[str, ...]) -> Case:
    """One file: 3-D or grey for a model of one modality, else with one channel a modality, in the model's order."""
    name = path.name.split(".")[0]
    if is_nifti(path):
        channels = _nifti_channels(path)
    elif path.suffix.lower() in PICTURE_SUFFIXES:
        channels = _picture_channels(path)
    else:
        raise DataError(
            f"{path}: is neither NIfTI nor a picture; expected .nii, .nii.gz or {', '.join(PICTURE_SUFFIXES)}"
        )
    if channels != len(modalities):
        raise DataError(
            f"{path}: has {channels} channel(s) and the model needs {len(modalities)} ({', '.join(modalities)}); "
            "give a case folder or a CSV manifest that names a file for each"
        )
    sources = {
        modality: Source((path,), None if channels == 1 else channel) for channel, modality in enumerate(modalities)
    }
    return Case(name, name, UNKNOWN_SITE, sources)


def _nifti_channels(path: Path) -> int:
    try:
        shape = nib.load(path).shape
    except Exception as error:
        raise DataError(f"{path}: is not a readable NIfTI file ({error}); copy or export it again") from None
    return int(shape[3]) if len(shape) > 3 else 1


def _picture_channels(path: Path) -> int:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            bands = len([band for band in picture.getbands() if band != "A"])
    except (UnidentifiedImageError, OSError):
        raise DataError(f"{path}: is not a readable picture; copy or export it again") from None
    return bands

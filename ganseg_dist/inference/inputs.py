"""What `ganseg predict` accepts: any cohort layout, or single files whose channels are the model's modalities."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import nibabel as nib

from ganseg_dist.data.cohort import COLOURS, GREY, UNKNOWN_SITE, Case, Source
from ganseg_dist.data.readers import read_cohort
from ganseg_dist.data.readers.pictures import sources
from ganseg_dist.data.scan import PICTURE_SUFFIXES, is_nifti
from ganseg_dist.errors import DataError


def read_inputs(
    path: Path, modalities: tuple[str, ...], layout: str | None = None, channels: tuple[str, ...] = ()
) -> tuple[Case, ...]:
    """The cases under a path; a case that lacks a modality is among them, for `load_scan` to name.

    Args:
        modalities: what the model needs, in its order.
        channels: modalities in the channel order of the files it learnt from; a single file may have these.

    Raises DataError when there are none, when none has what the model needs, or when two share a name.
    """
    if path.is_file() and path.suffix.lower() != ".csv":
        return (_single_file(path, modalities, channels or modalities),)
    # The BraTS reader knows a case folder by its name, which `.` and `..` hide.
    cases = read_cohort(path if path.name not in ("", "..") else path.resolve(), layout).cases
    if not any(set(modalities) <= set(case.images) for case in cases):
        raise DataError(
            f"{path}: no case has all of {', '.join(modalities)}, which the model needs; "
            f"{cases[0].id} has {', '.join(cases[0].images)}"
        )
    twice = [name for name, count in Counter(case.id for case in cases).items() if count > 1]
    if twice:
        raise DataError(f"{path}: holds two cases called {twice[0]}; predict their folders one by one")
    return cases


def _single_file(path: Path, modalities: tuple[str, ...], in_file: tuple[str, ...]) -> Case:
    """One file: 3-D or grey for a model of one modality, else with a channel for each of `in_file`."""
    name = path.name.removesuffix(".gz").removesuffix(path.suffix if path.suffix != ".gz" else ".nii")
    if set(modalities) <= {*COLOURS, GREY}:
        _picture_channels(path)
        images = sources(path, colour=GREY not in modalities)
        return Case(name, name, UNKNOWN_SITE, {modality: images[modality] for modality in modalities})
    if is_nifti(path):
        channels = _nifti_channels(path)
    elif path.suffix.lower() in PICTURE_SUFFIXES:
        channels = _picture_channels(path)
    else:
        raise DataError(
            f"{path}: is neither NIfTI nor a picture; expected .nii, .nii.gz or {', '.join(PICTURE_SUFFIXES)}"
        )
    if channels == len(modalities) == 1:
        return Case(name, name, UNKNOWN_SITE, {modalities[0]: Source((path,))})
    if channels != len(in_file):
        raise DataError(
            f"{path}: has {channels} channel(s) and the model needs {len(in_file)} ({', '.join(in_file)}); "
            "give a case folder or a CSV manifest that names a file for each"
        )
    return Case(name, name, UNKNOWN_SITE, {name: Source((path,), in_file.index(name)) for name in modalities})


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
            bands, pages = picture.getbands(), getattr(picture, "n_frames", 1)
    except (UnidentifiedImageError, OSError):
        raise DataError(f"{path}: is not a readable picture; copy or export it again") from None
    if pages > 1:
        raise DataError(f"{path}: has {pages} pages; save each as a picture, or all as one NIfTI volume")
    return len([band for band in bands if band != "A"])

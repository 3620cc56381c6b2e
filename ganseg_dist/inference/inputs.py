"""What `ganseg predict` accepts: any cohort layout, a folder of pictures, files whose channels are the modalities."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ganseg_dist.data.cohort import COLOURS, GREY, UNKNOWN_SITE, Case, Source
from ganseg_dist.data.formats import PICTURE_SUFFIXES, is_nifti
from ganseg_dist.data.listing import check_file
from ganseg_dist.data.nifti import nifti_channels
from ganseg_dist.data.picture import shows_colour
from ganseg_dist.data.readers import read_cohort, recognised
from ganseg_dist.data.readers.pictures import pictures_in, sources
from ganseg_dist.errors import DataError


def read_inputs(
    path: Path, modalities: tuple[str, ...], layout: str | None = None, channels: tuple[str, ...] = ()
) -> tuple[Case, ...]:
    """The cases under a path; a case that lacks a modality is among them, for `load_scan` to name.

    For a model of pictures, in colour or grey, a folder that is no cohort gives a case a picture, and pictures are read
    in its modalities whichever way they look (`colours_told`).

    Args:
        modalities: what the model needs, in its order.
        channels: modalities in the channel order of the files it learnt from; a single file may have these.

    Raises DataError when there are none, when none has what the model needs, or when two share a name.
    """
    if path.is_file() and path.suffix.lower() != ".csv":
        return (_single_file(path, modalities, channels or modalities),)
    # The BraTS reader knows a case folder by its name, which `.` and `..` hide.
    place = path if path.name not in ("", "..") else path.resolve()
    pictures = _plain_pictures(place) if _sees_pictures(modalities) and layout is None else []
    if pictures:
        cases = tuple(_picture(file, modalities) for file in pictures)
    else:
        cases = tuple(_seen_alike(case, modalities) for case in read_cohort(place, layout, with_masks=False).cases)
    if not any(set(modalities) <= set(case.images) for case in cases):
        raise DataError(
            f"{path}: no case has all of {', '.join(modalities)}, which the model needs; "
            f"{cases[0].id} has {', '.join(cases[0].images)}"
        )
    twice = [name for name, count in Counter(case.id for case in cases).items() if count > 1]
    if twice:
        mend = "rename one" if pictures else "predict their folders one by one"
        raise DataError(f"{path}: holds two cases called {twice[0]}; {mend}")
    return cases


def colours_told(cases: Sequence[Case], modalities: tuple[str, ...]) -> str | None:
    """How many pictures are grey for a model of colours, or in colour for one of grey ones, and what is read of them.

    None where all are as the model's were. A picture that cannot be read is left to `load_scan`.
    """
    if not _sees_pictures(modalities):
        return None
    in_colour = GREY not in modalities
    first = [case.images[modalities[0]] for case in cases if modalities[0] in case.images]
    others = [file for source in first for file in source.files if _differs(file, in_colour)]
    if not others:
        return None
    many = f"{others[0]} is" if len(others) == 1 else f"{len(others)} pictures, such as {others[0]}, are"
    if in_colour:
        return f"{many} grey, and the model learnt from colour: the grey level is read as red, green and blue"
    return f"{many} in colour, and the model learnt from grey: the luminance is read"


def _sees_pictures(modalities: tuple[str, ...]) -> bool:
    return set(modalities) <= {*COLOURS, GREY}


def _seen_alike(case: Case, modalities: tuple[str, ...]) -> Case:
    """A picture of a grey cohort as a model of colours needs it, and the other way round."""
    files = {source.files for source in case.images.values()}
    if set(modalities) <= set(case.images) or not (_sees_pictures(modalities) and _sees_pictures(tuple(case.images))):
        return case
    if len(files) > 1 or len(one := files.pop()) > 1 or is_nifti(one[0]):
        return case
    return replace(case, images=_picture(one[0], modalities).images)


def _plain_pictures(folder: Path) -> list[Path]:
    """The pictures of a folder that no layout knows, less masks that lie beside their images."""
    if not folder.is_dir() or recognised(folder) is not None:
        return []
    files = pictures_in(folder)
    masks = {f"{file.stem}_mask" for file in files}
    return [file for file in files if file.stem not in masks]


def _differs(file: Path, in_colour: bool) -> bool:
    try:
        return not is_nifti(file) and shows_colour(file) != in_colour
    except DataError:
        return False


def _picture(file: Path, modalities: tuple[str, ...]) -> Case:
    """In colour or grey, whichever the model needs."""
    images = sources(file, colour=GREY not in modalities)
    return Case(file.stem, file.stem, UNKNOWN_SITE, {modality: images[modality] for modality in modalities})


def _single_file(path: Path, modalities: tuple[str, ...], in_file: tuple[str, ...]) -> Case:
    """One file: 3-D or grey for a model of one modality, else with a channel for each of `in_file`."""
    name = path.name.removesuffix(".gz").removesuffix(path.suffix if path.suffix != ".gz" else ".nii")
    if _sees_pictures(modalities):
        _picture_channels(path)
        return _picture(path, modalities)
    if is_nifti(path):
        channels = nifti_channels(path)
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


def _picture_channels(path: Path) -> int:
    from PIL import Image, UnidentifiedImageError

    check_file(path)
    try:
        with Image.open(path) as picture:
            bands, pages = picture.getbands(), getattr(picture, "n_frames", 1)
    except (UnidentifiedImageError, OSError):
        raise DataError(f"{path}: is not a readable picture; copy or export it again") from None
    if pages > 1:
        raise DataError(f"{path}: has {pages} pages; save each as a picture, or all as one NIfTI volume")
    return len([band for band in bands if band != "A"])

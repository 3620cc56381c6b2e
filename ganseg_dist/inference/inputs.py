"""What `ganseg predict` accepts: any cohort layout, folders of images alone, files with a channel for each modality."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ganseg_dist.data.cohort import COLOURS, GREY, MODALITIES, UNKNOWN_SITE, Case, Source
from ganseg_dist.data.colours import shows_colour
from ganseg_dist.data.formats import PICTURE_SUFFIXES, is_image, is_nifti, without_suffix
from ganseg_dist.data.listing import check_file, data_files
from ganseg_dist.data.nifti import nifti_channels
from ganseg_dist.data.picture import load_picture
from ganseg_dist.data.readers import read_cohort, recognised
from ganseg_dist.data.readers.base import is_mask_name
from ganseg_dist.data.readers.dataset_json import NAME, Description
from ganseg_dist.data.readers.decathlon import CHANNEL_FILE, cases_in
from ganseg_dist.data.readers.pictures import distinct_pictures, sources, without_mask
from ganseg_dist.errors import DataError
from ganseg_dist.inference.plain_scans import named_modality, plain_scans

TEST_IMAGES = "imagesTs"
"""Where nnU-Net and the Decathlon keep images without masks."""


def read_inputs(
    path: Path, modalities: tuple[str, ...], layout: str | None = None, channels: tuple[str, ...] = ()
) -> tuple[Case, ...]:
    """The cases under a path; a case that lacks a modality is among them, for `load_scan` to name.

    A folder may be a cohort, a data set's folder of images alone (imagesTs), or NIfTI files that `plain_scans` tells
    apart by their names. For a model of pictures, in colour or grey, or whose modalities are a picture's channels, a
    folder that is no cohort gives a case a picture, and pictures are read in its modalities whichever way they look
    (`colours_told`).

    Args:
        modalities: what the model needs, in its order.
        channels: modalities in the channel order of the files it learnt from; a single file may have these.

    Raises DataError when there are none, when none has what the model needs, or when two share a name.
    """
    in_file = channels or modalities
    if not path.is_dir() and path.suffix.lower() != ".csv" and path.exists():
        return (_single_file(path, modalities, in_file),)
    # The BraTS reader knows a case folder by its name, which `.` and `..` hide.
    place = path if path.name not in ("", "..") else path.resolve()
    cases = tuple(_seen_alike(case, modalities) for case in _cases(place, modalities, layout, in_file))
    if not any(set(modalities) <= set(case.images) for case in cases):
        raise DataError(
            f"{path}: no case has all of {', '.join(modalities)}, which the model needs; "
            f"{cases[0].id} has {', '.join(cases[0].images)}"
        )
    twice = [name for name, count in Counter(case.id for case in cases).items() if count > 1]
    if twice:
        raise DataError(f"{path}: holds two cases called {twice[0]}; rename one, or predict their folders one by one")
    return cases


def unread_test_images(path: Path, cases: Sequence[Case]) -> Path | None:
    """The imagesTs of a data set whose training cases are given; None where there is none, or it is what is read."""
    tests = path / TEST_IMAGES
    read = {file.parent for case in cases for source in case.images.values() for file in source.files}
    return tests if tests not in read and any(is_image(file) for file in data_files(tests)) else None


def _cases(place: Path, modalities: tuple[str, ...], layout: str | None, in_file: tuple[str, ...]) -> Sequence[Case]:
    """The first way of reading a place that finds cases."""
    if layout is not None or not place.is_dir():
        return read_cohort(place, layout, with_masks=False).cases
    if cases := _described_images(place, modalities):
        return cases
    if recognised(place) is not None:
        if (tests := _described_images(place / TEST_IMAGES, modalities)) and not any(data_files(place / "imagesTr")):
            return tests
        return read_cohort(place, with_masks=False).cases
    if _sees_pictures(modalities):
        if pictures := _plain_pictures(place):
            return [_picture(file, modalities) for file in pictures]
    elif scans := plain_scans(place, modalities, in_file):
        return scans
    elif pictures := _pictures_of_channels(place, in_file):
        return [_single_file(file, modalities, in_file) for file in pictures]
    return read_cohort(place, with_masks=False).cases  # which says what can be read


def _described_images(folder: Path, modalities: tuple[str, ...]) -> tuple[Case, ...]:
    """The cases of a folder of images alone whose channels a dataset.json names, there or one level up.

    None where it is of something else: it does not name the model's, and files do not count its channels.
    """
    images = [file for file in data_files(folder) if is_image(file)]
    description = Description.of_images(folder) if images else None
    if description is None:
        return ()
    counted = any(CHANNEL_FILE.fullmatch(without_suffix(file.name)) for file in images)
    if not counted and not set(modalities) <= set(description.channels.values()):
        return ()
    if folder.name.lower().startswith("labels"):
        raise DataError(f"{folder}: holds masks; give the folder of their images, such as {TEST_IMAGES}")
    return cases_in(folder, description)


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
    """The pictures of a folder, less masks that lie beside their images."""
    files = distinct_pictures(folder)
    stems = {file.stem for file in files}
    return [file for file in files if (image := without_mask(file.stem)) == file.stem or image not in stems]


def _pictures_of_channels(folder: Path, in_file: tuple[str, ...]) -> list[Path]:
    """The pictures of a folder whose colours are a model's modalities, as in `kaggle_3m`; none where they are not."""
    pictures = _plain_pictures(folder) if len(in_file) > 1 else []
    return pictures if pictures and _picture_channels(pictures[0]) == len(in_file) else []


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
    """One file: 3-D or grey for a model of one modality, else with a channel for each of `in_file`.

    Where a dataset.json beside it or one level up names its channels, these are its channels.

    Raises DataError for a file that is something else by its name, or by the dataset.json.
    """
    check_file(path)
    name = without_suffix(path.name)
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
    described = Description.of_images(path.parent)
    if (
        described is not None
        and channels == len(described.channels)
        and set(modalities) <= set(described.channels.values())
    ):
        in_file = tuple(described.channels[number] for number in sorted(described.channels))
    if channels == len(modalities) == 1:
        _check_modality(path, modalities[0], described)
        return Case(name, name, UNKNOWN_SITE, {modalities[0]: Source((path,))})
    if channels != len(in_file):
        raise DataError(
            f"{path}: has {channels} channel(s) and the model needs {len(in_file)} ({', '.join(in_file)}); "
            "give a case folder or a CSV manifest that names a file for each"
        )
    return Case(name, name, UNKNOWN_SITE, {name: Source((path,), in_file.index(name)) for name in modalities})


def _check_modality(path: Path, needed: str, described: Description | None) -> None:
    """Raises DataError where a volume is a mask, or of another modality that we know, by what is written of it."""
    stem = without_suffix(path.name)
    if is_mask_name(stem):
        raise DataError(f"{path}: is a mask by its name, and the model needs {needed}; give the image, or rename it")
    match = CHANNEL_FILE.fullmatch(stem)
    channels = described.channels if described is not None else {}
    by_number = channels.get(int(match["channel"]) if match and len(channels) > 1 else min(channels, default=0))
    for modality, source in ((named_modality(stem, MODALITIES), "its name"), (by_number, NAME)):
        if modality in MODALITIES and needed in MODALITIES and modality != needed:
            raise DataError(f"{path}: is {modality} by {source}, and the model needs {needed}; give that image")


def _picture_channels(path: Path) -> int:
    pixels = load_picture(path)
    return 1 if pixels.ndim == 2 else int(pixels.shape[2])

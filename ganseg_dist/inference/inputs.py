"""Reads what `ganseg predict` accepts: any cohort layout, folders of images alone, files with a channel a modality."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ganseg_dist.data.cohort import GREY, MODALITIES, UNKNOWN_SITE, Case, Source, are_of_pictures
from ganseg_dist.data.listing import PICTURE_SUFFIXES, check_file, data_files, is_image, is_nifti, without_suffix
from ganseg_dist.data.nifti import nifti_channels
from ganseg_dist.data.picture import load_picture
from ganseg_dist.data.readers import matching_readers, read_cohort
from ganseg_dist.data.readers.decathlon import CHANNEL_FILE, cases_in
from ganseg_dist.data.readers.shared.base import is_mask_name
from ganseg_dist.data.readers.shared.dataset_json import NAME, Description
from ganseg_dist.data.readers.shared.pictures import colour_of_readable, distinct_pictures, sources, without_mask
from ganseg_dist.errors import DataError
from ganseg_dist.inference.plain_scans import named_modality, plain_scans

TEST_IMAGES = "imagesTs"
"""Where nnU-Net and the Decathlon keep images without masks."""


def read_inputs(
    path: Path, modalities: tuple[str, ...], layout: str | None = None, channels: tuple[str, ...] = ()
) -> tuple[Case, ...]:
    """The cases under a path, with those that lack a modality: `load_scan` raises the error for these.

    A folder may be a cohort, a data set's folder of images alone (imagesTs), or NIfTI files that `plain_scans`
    distinguishes by their names. For a model of pictures, in colour or grey, or whose modalities are a picture's
    channels, each picture of a folder that is no cohort is a case, and pictures are read in the model's modalities,
    whether they are grey or in colour (`colour_mismatch_message`).

    Args:
        modalities: what the model needs, in its order.
        channels: modalities in the channel order of the files it was trained on; a single file may have these.

    Raises DataError when there are none, when none has what the model needs, or when two share a name.
    """
    in_file = channels or modalities
    if not path.is_dir() and path.suffix.lower() != ".csv" and path.exists():
        return (_single_file(path, modalities, in_file),)
    # The BraTS reader recognises a case folder by its name, which `.` and `..` hide.
    place = path if path.name not in ("", "..") else path.resolve()
    cases = tuple(_match_colours(case, modalities) for case in _cases(place, modalities, layout, in_file))
    if not any(set(modalities) <= set(case.images) for case in cases):
        raise DataError(
            f"{path}: no case has all of {', '.join(modalities)}, which the model needs; "
            f"{cases[0].id} has {', '.join(cases[0].images)}"
        )
    duplicates = [name for name, count in Counter(case.id for case in cases).items() if count > 1]
    if duplicates:
        raise DataError(
            f"{path}: holds two cases called {duplicates[0]}; rename one, or predict their folders one by one"
        )
    return cases


def unread_test_images(path: Path, cases: Sequence[Case]) -> Path | None:
    """The imagesTs of a data set whose training cases are given; None where there is none, or it is what was read."""
    tests = path / TEST_IMAGES
    read = {file.parent for case in cases for source in case.images.values() for file in source.files}
    return tests if tests not in read and any(is_image(file) for file in data_files(tests)) else None


def _cases(place: Path, modalities: tuple[str, ...], layout: str | None, in_file: tuple[str, ...]) -> Sequence[Case]:
    if layout is not None or not place.is_dir():
        return read_cohort(place, layout, with_masks=False).cases
    if cases := _described_images(place, modalities):
        return cases
    if matching_readers(place):
        if (tests := _described_images(place / TEST_IMAGES, modalities)) and not any(data_files(place / "imagesTr")):
            return tests
        return read_cohort(place, with_masks=False).cases
    if are_of_pictures(modalities):
        if pictures := _plain_pictures(place):
            return [_picture(file, modalities) for file in pictures]
    elif scans := plain_scans(place, modalities, in_file):
        return scans
    elif pictures := _pictures_of_channels(place, in_file):
        return [_single_file(file, modalities, in_file) for file in pictures]
    return read_cohort(place, with_masks=False).cases  # whose error lists what can be read


def _described_images(folder: Path, modalities: tuple[str, ...]) -> tuple[Case, ...]:
    """The cases of a folder of images alone whose channels a dataset.json names, there or one level up.

    No cases where the dataset.json is not about these images: it does not name the model's modalities, and the files'
    names have no channel numbers.
    """
    images = [file for file in data_files(folder) if is_image(file)]
    description = Description.of_images(folder) if images else None
    if description is None:
        return ()
    numbered = any(CHANNEL_FILE.fullmatch(without_suffix(file.name)) for file in images)
    if not numbered and not set(modalities) <= set(description.channels.values()):
        return ()
    if folder.name.lower().startswith("labels"):
        raise DataError(f"{folder}: holds masks; give the folder of their images, such as {TEST_IMAGES}")
    return cases_in(folder, description)


def colour_mismatch_message(cases: Sequence[Case], modalities: tuple[str, ...]) -> str | None:
    """How many pictures are grey for a model of colours, or in colour for one of grey, and how they are read.

    None where all match the model. A picture that cannot be read is left to `load_scan`.
    """
    if not are_of_pictures(modalities):
        return None
    in_colour = GREY not in modalities
    first = [case.images[modalities[0]] for case in cases if modalities[0] in case.images]
    pictures = [file for source in first for file in source.files if not is_nifti(file)]
    mismatched = [file for file in pictures if colour_of_readable(file) is (not in_colour)]
    if not mismatched:
        return None
    count = len(mismatched)
    subject = f"{mismatched[0]} is" if count == 1 else f"{count} pictures, such as {mismatched[0]}, are"
    if in_colour:
        return f"{subject} grey, and the model was trained on colour: the grey level is read as red, green and blue"
    return f"{subject} in colour, and the model was trained on grey: the luminance is read"


def _match_colours(case: Case, modalities: tuple[str, ...]) -> Case:
    """A grey cohort's picture in a colour model's modalities, and the other way round; other cases as they are."""
    files = {source.files for source in case.images.values()}
    if set(modalities) <= set(case.images) or not (are_of_pictures(modalities) and are_of_pictures(case.images)):
        return case
    if len(files) > 1 or len(pictures := files.pop()) > 1 or is_nifti(pictures[0]):
        return case
    return replace(case, images=_picture(pictures[0], modalities).images)


def _plain_pictures(folder: Path) -> list[Path]:
    """The pictures of a folder, without masks that lie beside their images."""
    files = distinct_pictures(folder)
    stems = {file.stem for file in files}
    return [file for file in files if (image := without_mask(file.stem)) == file.stem or image not in stems]


def _pictures_of_channels(folder: Path, in_file: tuple[str, ...]) -> list[Path]:
    """The pictures of a folder whose colours are a model's modalities, as in `kaggle_3m`; none where they are not."""
    pictures = _plain_pictures(folder) if len(in_file) > 1 else []
    return pictures if pictures and _picture_channels(pictures[0]) == len(in_file) else []


def _picture(file: Path, modalities: tuple[str, ...]) -> Case:
    images = sources(file, colour=GREY not in modalities)
    return Case(file.stem, file.stem, UNKNOWN_SITE, {modality: images[modality] for modality in modalities})


def _single_file(path: Path, modalities: tuple[str, ...], in_file: tuple[str, ...]) -> Case:
    """One file: 3-D or grey for a model of one modality, else with a channel for each of `in_file`.

    Where a dataset.json beside it or one level up names its channels, these are its channels.

    Raises DataError for a file that is something else by its name, or by the dataset.json.
    """
    check_file(path)
    name = without_suffix(path.name)
    if are_of_pictures(modalities):
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
    """Raises DataError where a volume is a mask by its name, or of another known modality by name or dataset.json."""
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

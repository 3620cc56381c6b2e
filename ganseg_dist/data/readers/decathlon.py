"""Medical Segmentation Decathlon and nnU-Net: images described by a `dataset.json`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from ganseg_dist.data.cohort import COLOURS, UNKNOWN_SITE, Case, Source
from ganseg_dist.data.labels import UNSTATED, LabelScheme
from ganseg_dist.data.listing import (
    composed,
    data_files,
    found_path,
    is_data_name,
    is_image,
    is_nifti,
    is_picture,
    without_suffix,
)
from ganseg_dist.data.nifti import nifti_channels
from ganseg_dist.data.readers.shared.base import Reader, by_stem
from ganseg_dist.data.readers.shared.dataset_json import NAME, Description
from ganseg_dist.errors import DataError
from ganseg_dist.files import confined

CHANNEL_FILE = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")
"""nnU-Net's file of one channel, without its suffix."""

OUTSIDE = "write paths relative to this file, below its folder"


class DecathlonReader(Reader):
    """The Decathlon's 4-D images and nnU-Net's one file per channel, versions 1 and 2."""

    name = "decathlon"
    describes = "Medical Segmentation Decathlon or nnU-Net: dataset.json beside imagesTr/ and labelsTr/"
    takes_labels = True
    unread_folders = ("imagests", "labelsts")  # test cases, for `ganseg predict`

    def recognises(self, root: Path) -> bool:
        """By its dataset.json."""
        return root.is_dir() and any(file.name.lower() == NAME for file in data_files(root))

    def cases(self, root: Path, scheme: LabelScheme | None = None) -> tuple[Case, ...]:
        """The training cases. Neither convention names hospitals or patients, so each case is its own patient."""
        description = Description.beside(root)
        if description is None:
            return ()
        mask_scheme = description.scheme if scheme is None else scheme
        if description.is_nnunet:
            return _nnunet_cases(root, description, mask_scheme)
        return _decathlon_cases(root, description, mask_scheme)


def cases_in(folder: Path, description: Description) -> tuple[Case, ...]:
    """The cases of a folder of images without masks, such as imagesTs: one file per channel, or one of all channels."""
    images = by_stem(_of_format(folder, description), "the image")
    if _is_file_a_channel(images, description):
        sources = _by_channel(images, description.channels)
    else:
        _check_channels(images.values(), description)
        sources = {stem: _channels_of(image, description.channels) for stem, image in sorted(images.items())}
    return tuple(_case(case, of_case, None, UNSTATED) for case, of_case in sources.items())


def _is_file_a_channel(images: Mapping[str, Path], description: Description) -> bool:
    """Whether the numbers in names count channels, as in nnU-Net, and not cases, as in the Decathlon's `lung_0001`."""
    numbers = [int(match["channel"]) for stem in images if (match := CHANNEL_FILE.fullmatch(stem))]
    several = len(description.channels) > 1
    if not numbers or not (several or len(numbers) == len(images)):
        return False
    if "channel_names" in description.content:
        return True
    with suppress(DataError):  # loading the image later reports the error
        if several and is_nifti(image := next(iter(images.values()))) and nifti_channels(image) > 1:
            return False
    return set(numbers) <= set(description.channels)


def _decathlon_cases(root: Path, description: Description, scheme: LabelScheme) -> tuple[Case, ...]:
    """`labels` maps value to name; `training` lists each image and its label file."""
    file, channels = description.file, description.channels
    if not isinstance(description.content["training"], list):
        raise DataError(f"{file}: training is no list; list each image with its label there")
    folders: dict[Path, Mapping[str, Path]] = {}
    cases: dict[str, Case] = {}
    for entry in description.content["training"]:
        try:
            listed = entry["image"], entry["label"]
        except (KeyError, TypeError):
            raise DataError(f"{file}: training entry {entry!r} needs an image and a label; complete it") from None
        if not all(is_data_name(Path(path).name) for path in listed if isinstance(path, str)):
            continue  # a listing made from the folder may hold AppleDouble's ._*
        image, label = (
            found_path(confined(root, path, f"{file}: training", OUTSIDE, follow_links=True)) for path in listed
        )
        case = composed(without_suffix(image.name))
        images, labels = (_listed(folder, folders) for folder in (image.parent, label.parent))
        mask = labels.get(composed(without_suffix(label.name)), label)
        parts = {number: images.get(f"{case}_{number:04d}") for number in channels}
        if case not in images and any(parts.values()):  # nnU-Net's first version
            sources = {name: Source((part,)) for number, name in channels.items() if (part := parts[number])}
        else:
            sources = _channels_of(images.get(case, image), channels)
        found_case = _case(case, sources, mask, scheme)
        if cases.setdefault(case, found_case) != found_case:
            raise DataError(f"{file}: training lists {case} twice, with other files; leave one of the two")
    _check_channels((case.first_image.files[0] for case in cases.values()), description)
    return tuple(cases[case] for case in sorted(cases))


def _check_channels(images: Iterable[Path], description: Description) -> None:
    """Raises DataError where the first readable image has more channels than are named: the choice is unclear."""
    n_named = len(description.channels)
    for image in images:
        with suppress(DataError):  # loading the image later reports the error
            n_stored = nifti_channels(image)
            break
    else:
        return
    if 1 < n_named < n_stored:
        raise DataError(
            f"{description.file}: names {n_named} channels, and {image.name} has {n_stored}; name each of them"
        )


def _nnunet_cases(root: Path, description: Description, scheme: LabelScheme) -> tuple[Case, ...]:
    """Cases are found by file name; without labelsTr/ they have no masks."""
    images = by_stem(_of_format(root / "imagesTr", description), "the image")
    masks, listed = by_stem(_of_format(root / "labelsTr", description), "the mask"), root / "labelsTr"
    return tuple(
        _case(
            case,
            sources,
            masks.get(case, listed / f"{case}{description.ending}") if listed.is_dir() else None,
            scheme,
        )
        for case, sources in _by_channel(images, description.channels).items()
    )


def _of_format(folder: Path, description: Description) -> list[Path]:
    """The folder's images of the format that the description names; NIfTI may be compressed or not."""
    ending = description.ending.lower()
    if is_nifti(Path(ending)):
        return [file for file in data_files(folder) if is_nifti(file)]
    return [file for file in data_files(folder) if file.name.lower().endswith(ending)]


def _listed(folder: Path, listings: dict[Path, Mapping[str, Path]]) -> Mapping[str, Path]:
    """The folder's images by their names without suffix; each folder is listed once."""
    if folder not in listings:
        listings[folder] = by_stem((file for file in data_files(folder) if is_image(file)), "the file")
    return listings[folder]


def _by_channel(images: Mapping[str, Path], channels: Mapping[int, str]) -> dict[str, dict[str, Source]]:
    """Each case, by name, with the files of its channels."""
    matches = (CHANNEL_FILE.fullmatch(stem) for stem in images)
    cases = sorted({match["case"] for match in matches if match})
    files = {
        case: {number: file for number in channels if (file := images.get(f"{case}_{number:04d}")) is not None}
        for case in cases
    }
    return {
        case: _channels_of(channel_files[0], channels)
        if _is_in_colour(channel_files, channels)
        else {channels[number]: Source((file,)) for number, file in channel_files.items()}
        for case, channel_files in files.items()
    }


def _is_in_colour(files: Mapping[int, Path], channels: Mapping[int, str]) -> bool:
    """Whether a case is one picture whose colours are its channels, as in nnU-Net."""
    return set(channels.values()) == set(COLOURS) and files.keys() == {0} and is_picture(files[0])


def _channels_of(image: Path, channels: Mapping[int, str]) -> dict[str, Source]:
    return {name: Source((image,), number if len(channels) > 1 else None) for number, name in channels.items()}


def _case(case: str, images: Mapping[str, Source], mask: Path | None, scheme: LabelScheme) -> Case:
    return Case(case, case, UNKNOWN_SITE, images, mask=None if mask is None else Source((mask,)), scheme=scheme)


READER = DecathlonReader()

"""Pictures whose class is the name of their folder, or is part of their names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ganseg_dist.data.cohort import Case
from ganseg_dist.data.labels import LabelScheme
from ganseg_dist.data.listing import composed, data_folders
from ganseg_dist.data.readers.shared.base import Reader, by_stem, is_mask_folder
from ganseg_dist.data.readers.shared.pictures import MASK, Patient, Patients, in_colour, picture_case, pictures_in
from ganseg_dist.errors import DataError

Part = Literal["train", "test"]

PARTS: Mapping[str, Part] = {
    "training": "train",
    "train": "train",
    "validation": "train",
    "valid": "train",
    "val": "train",
    "testing": "test",
    "test": "test",
}
"""Folder names of the authors' parts. Their validation pictures join the training ones, which are then split."""

IMAGES = re.compile(r"(image|img)s?", re.IGNORECASE)
"""A folder of pictures in other layouts, never a class; beside a folder of masks no folder is a class."""

NAMED = re.compile(r"(?P<class>.+?)___.+")
"""`Viable___Case-4-C21-25306-21689_120.jpg`."""

PATIENT = re.compile(r"___(?P<patient>Case-\d+|P\d+)(?!\d)")
"""Names of osteosarcoma tiles begin with the patient, in one of two forms."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """A picture, its class, and the part to which its authors assigned it."""

    file: Path
    class_name: str
    part: Part | None = None


class ClassFolderReader(Reader):
    """Whole pictures and their classes, without masks: `Training/glioma/1.jpg`, `glioma/1.jpg`, `glioma___1.jpg`."""

    name = "class_folder"
    describes = "classes: <class>/ folders of pictures, in Training/ and Testing/ or not, or files <class>___<name>"
    order = 100
    names_patients = False

    def recognises(self, root: Path) -> bool:
        """By a part's folder that holds folders of pictures, by two folders of pictures, or by `___` in names."""
        if not root.is_dir():
            return False
        pictures = list(_labelled(root))
        has_parts = any(picture.part is not None for picture in pictures)
        is_masked = any(picture.file.stem.lower().endswith(MASK) for picture in pictures)
        in_folders = any(picture.file.parent != root for picture in pictures)
        several = len({picture.class_name for picture in pictures}) > 1
        return bool(pictures) and not is_masked and (has_parts or several or not in_folders)

    def cases(self, root: Path, scheme: LabelScheme | None = None) -> tuple[Case, ...]:
        """In order of part, class and name.

        Raises DataError naming two pictures of one name that differ, or two classes, such as `no_tumor` and `NoTumor`,
        that differ in case, spaces or punctuation alone.
        """
        labelled = {picture.file: picture for picture in _labelled(root)}
        _check_classes(labelled.values())
        distinct = by_stem(labelled, "the picture", lambda file: str(file.with_suffix("")))
        pictures = [labelled[file] for file in distinct.values()]
        patients = Patients(root)
        colour = in_colour([picture.file for picture in pictures])
        return tuple(_case(root, picture, patients, colour) for picture in pictures)


def _labelled(root: Path) -> Iterator[Labelled]:
    folders = list(data_folders(root))
    parts = [folder for folder in folders if folder.name.lower() in PARTS]
    for folder in parts:
        yield from _in_classes(list(data_folders(folder)), PARTS[folder.name.lower()])
    if not parts:
        yield from _in_classes(folders, None)
    for file in pictures_in(root):
        if named := NAMED.fullmatch(file.stem):
            yield Labelled(file, named["class"])


def _in_classes(folders: Sequence[Path], part: Part | None) -> Iterator[Labelled]:
    if any(is_mask_folder(folder.name) for folder in folders):
        return
    for folder in folders:
        for file in pictures_in(folder) if not IMAGES.fullmatch(folder.name) else ():
            yield Labelled(file, composed(folder.name), part)


def _check_classes(pictures: Iterable[Labelled]) -> None:
    spellings: dict[str, str] = {}
    for picture in pictures:
        letters = re.sub(r"[\W_]", "", picture.class_name.casefold())
        other = spellings.setdefault(letters, picture.class_name)
        if other != picture.class_name:
            raise DataError(
                f"{picture.file.parent}: is class {picture.class_name}, and another is {other}; name them alike"
            )


def _case(root: Path, picture: Labelled, patients: Patients, colour: bool) -> Case:
    place = picture.file.relative_to(root).with_suffix("")
    case = composed("_".join(place.parts))  # every class may count its pictures from 1
    in_name = PATIENT.search(picture.file.stem)
    patient = patients.of(picture.file) or (Patient(in_name["patient"]) if in_name else None)
    return picture_case(case, picture.file, patient, colour=colour, class_name=picture.class_name, part=picture.part)


READER = ClassFolderReader()

"""Shared by the layouts of single pictures: grey or colour, and each picture's patient."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ganseg_dist.data.cohort import COLOURS, GREY, UNKNOWN_SITE, Case, Source
from ganseg_dist.data.colours import shows_colour
from ganseg_dist.data.listing import composed, data_files, file_called, is_picture
from ganseg_dist.data.readers.shared.base import by_stem, reading_csv
from ganseg_dist.errors import DataError
from ganseg_dist.files import confined
from ganseg_dist.sampling import evenly_spaced

PATIENTS_FILE = "patients.csv"
OUTSIDE = "write the picture's name, or its path below the folder of the CSV"

MASK = "_mask"
"""Optional ending of a mask's name after its image's."""

TCGA = re.compile(r"(?P<patient>TCGA-(?P<site>[A-Z0-9]{2})-[A-Z0-9]{4})(?![A-Z0-9])")
"""The ids of The Cancer Genome Atlas begin with the tissue source site and the participant."""

SAMPLED_PICTURES = 15
"""Pictures, evenly spaced, that decide whether a cohort is in colour."""


@dataclass(frozen=True, slots=True)
class Patient:
    """A picture's patient and site."""

    name: str
    site: str = UNKNOWN_SITE


def pictures_in(folder: Path) -> list[Path]:
    """The pictures that lie directly in a folder, by name."""
    return [file for file in data_files(folder) if is_picture(file)]


def distinct_pictures(folder: Path) -> list[Path]:
    """The pictures in a folder without copies in another format. Raises DataError where two of one name differ."""
    return list(by_stem(pictures_in(folder), "the picture").values())


def without_mask(stem: str) -> str:
    """The name of a mask's image: without `_mask`, in any case."""
    return stem[: -len(MASK)] if stem.lower().endswith(MASK) else stem


def in_colour(files: Sequence[Path]) -> bool:
    """Whether most of a cohort's pictures are coloured, by up to `SAMPLED_PICTURES` of them.

    All pictures of a cohort have the same modalities: in a cohort in colour a grey picture's level is read as red,
    green and blue; in a grey cohort a coloured picture's luminance is read. Preflight names such pictures.
    """
    sample = [files[index] for index in evenly_spaced(len(files), SAMPLED_PICTURES)]
    votes = [vote for file in sample if (vote := colour_of_readable(file)) is not None]
    return 2 * sum(votes) > len(votes)


def sources(file: Path, *, colour: bool) -> dict[str, Source]:
    """A picture's modalities: red, green and blue, or grey."""
    if colour:
        return {name: Source((file,), channel) for channel, name in enumerate(COLOURS)}
    return {GREY: Source((file,))}


def picture_case(name: str, file: Path, patient: Patient | None, *, colour: bool, **fields: Any) -> Case:
    """The case of one picture, with further fields; its patient is itself where none is known."""
    known = patient is not None
    patient = patient or Patient(name)
    return Case(name, patient.name, patient.site, sources(file, colour=colour), patient_known=known, **fields)


class Patients:
    """Each picture's patient, from `patients.csv` (columns file,patient and optionally site), else from TCGA names."""

    def __init__(self, root: Path) -> None:
        """Raises DataError naming the line of a `patients.csv` that cannot be used."""
        self._root = root
        csv_file = file_called(root, PATIENTS_FILE)
        self._file = csv_file or root / PATIENTS_FILE
        self._listed = None if csv_file is None else _listed(csv_file)

    def of(self, picture: Path) -> Patient | None:
        """The picture's patient; None where it is unknown. Raises DataError for a picture that `patients.csv` lacks."""
        if self._listed is None:
            tcga = TCGA.match(picture.name)
            return Patient(tcga["patient"], tcga["site"]) if tcga else None
        names = tuple(map(composed, (picture.relative_to(self._root).as_posix(), picture.name, picture.stem)))
        matches = {name: self._listed[name] for name in names if name in self._listed}
        if not matches:
            raise DataError(f"{self._file}: does not list {names[0]}; add a line for it")
        if len(set(matches.values())) > 1:
            raise DataError(
                f"{self._file}: lists {names[0]} as {' and as '.join(matches)}, of different patients or sites; "
                "list each picture once"
            )
        return next(iter(matches.values()))


def _listed(file: Path) -> Mapping[str, Patient]:
    listed: dict[str, Patient] = {}
    with reading_csv(file), file.open(newline="", encoding="utf-8-sig") as text:
        reader = csv.DictReader(text)
        columns = [(name or "").strip().lower() for name in reader.fieldnames or ()]
        if not {"file", "patient"} <= set(columns):
            raise DataError(f"{file}:1: needs the columns file,patient (and site, where known); add them")
        reader.fieldnames = columns
        for line in reader:
            cells = {column: composed(line[column] or "").strip() for column in columns}
            if not cells["file"] or not cells["patient"]:
                raise DataError(f"{file}:{reader.line_num}: file or patient is empty; fill it in or remove the line")
            confined(file.parent, cells["file"], f"{file}:{reader.line_num}", OUTSIDE, follow_links=True)
            patient = Patient(cells["patient"], cells.get("site") or UNKNOWN_SITE)
            if listed.setdefault(cells["file"], patient) != patient:
                raise DataError(f"{file}:{reader.line_num}: {cells['file']} is listed twice; list each picture once")
    return listed


def colour_of_readable(file: Path) -> bool | None:
    """Whether a picture is coloured; None where it cannot be read."""
    try:
        return shows_colour(file)
    except DataError:
        return None  # preflight reports the error

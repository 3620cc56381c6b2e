"""What the layouts of single pictures share: grey or colour, and whose picture each is."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ganseg_dist.data.cohort import COLOURS, GREY, UNKNOWN_SITE, Source
from ganseg_dist.data.colours import shows_colour
from ganseg_dist.data.formats import is_picture
from ganseg_dist.data.listing import composed, data_files, file_called
from ganseg_dist.data.readers.base import reading_csv
from ganseg_dist.data.readers.candidates import by_stem
from ganseg_dist.errors import DataError
from ganseg_dist.paths import confined

PATIENTS_FILE = "patients.csv"
OUTSIDE = "write the picture's name, or its path below the folder of the CSV"

MASK = "_mask"
"""What may end a mask's name after its image's."""

TCGA = re.compile(r"(?P<patient>TCGA-(?P<site>[A-Z0-9]{2})-[A-Z0-9]{4})(?![A-Z0-9])")
"""The ids of The Cancer Genome Atlas begin with the tissue source site and the participant."""

LOOKED_AT = 15
"""Pictures, evenly spaced, that decide whether a cohort is in colour."""


@dataclass(frozen=True, slots=True)
class Patient:
    """Whose picture it is, and where it was taken."""

    name: str
    site: str = UNKNOWN_SITE


def pictures_in(folder: Path) -> list[Path]:
    """The pictures that lie directly in a folder, by name."""
    return [file for file in data_files(folder) if is_picture(file)]


def distinct_pictures(folder: Path) -> list[Path]:
    """The same, less copies in another format. Raises DataError where two of one name differ."""
    return list(by_stem(pictures_in(folder), "the picture").values())


def without_mask(stem: str) -> str:
    """A mask's name as its image's: without `_mask`, in whatever case."""
    return stem[: -len(MASK)] if stem.lower().endswith(MASK) else stem


def in_colour(files: Sequence[Path]) -> bool:
    """Whether most of a cohort's pictures are seen in colour, judged by some of them.

    One cohort has the same modalities throughout: in one in colour a grey picture gives its grey level as red,
    green and blue; in a grey one a picture in colour gives its luminance. Preflight names such pictures.
    """
    step = max(1, -(-len(files) // LOOKED_AT))
    votes = [vote for file in files[::step] if (vote := _shows_colour(file)) is not None]
    return 2 * sum(votes) > len(votes)


def sources(file: Path, *, colour: bool) -> dict[str, Source]:
    """A picture's modalities: red, green and blue, or grey."""
    if colour:
        return {name: Source((file,), channel) for channel, name in enumerate(COLOURS)}
    return {GREY: Source((file,))}


class Patients:
    """Whose each picture is, by `patients.csv` (columns file,patient and, where known, site), else by TCGA names."""

    def __init__(self, root: Path) -> None:
        """Raises DataError naming the line of a `patients.csv` that cannot be used."""
        self._root = root
        found = file_called(root, PATIENTS_FILE)
        self._file = found or root / PATIENTS_FILE
        self._listed = None if found is None else _listed(found)

    def of(self, picture: Path) -> Patient | None:
        """None where nothing tells. Raises DataError for a picture that an existing `patients.csv` leaves out."""
        if self._listed is None:
            tcga = TCGA.match(picture.name)
            return Patient(tcga["patient"], tcga["site"]) if tcga else None
        names = tuple(map(composed, (picture.relative_to(self._root).as_posix(), picture.name, picture.stem)))
        listed = {name: self._listed[name] for name in names if name in self._listed}
        if not listed:
            raise DataError(f"{self._file}: does not list {names[0]}; add a line for it")
        if len(set(listed.values())) > 1:
            raise DataError(
                f"{self._file}: lists {names[0]} as {' and as '.join(listed)}, of different patients or sites; "
                "list each picture once"
            )
        return next(iter(listed.values()))


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


def _shows_colour(file: Path) -> bool | None:
    try:
        return shows_colour(file)
    except DataError:
        return None  # preflight says why

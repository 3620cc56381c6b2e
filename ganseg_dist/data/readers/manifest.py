"""A CSV manifest, for files in any arrangement."""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from ganseg_dist.data.cohort import UNKNOWN_SITE, Case, Source
from ganseg_dist.data.labels import BINARY, SCHEMES, UNSTATED, LabelScheme, is_scheme_path, read_scheme
from ganseg_dist.data.listing import composed, data_files, file_called, found_path, is_data_name, is_nifti
from ganseg_dist.data.readers.shared.base import (
    Reader,
    by_stem,
    canonical_modality,
    in_numeric_order,
    is_mask_name,
    reading_csv,
)
from ganseg_dist.errors import DataError
from ganseg_dist.files import confined
from ganseg_dist.suggestion import similar

FILE_NAME = "manifest.csv"

OTHER_COLUMNS = ("case", "patient", "site", "mask", "labels", "class", "part")
"""Every further column is a modality."""

PARTS: Mapping[str, Literal["train", "test"]] = {"train": "train", "test": "test"}

OUTSIDE = (
    "write paths relative to the CSV, below its folder: move the CSV above its files, or link their folder beside it"
)

CHANNEL = re.compile(r"#\d+$")


class ManifestReader(Reader):
    """One row per case; paths are relative to the CSV and stay below its folder.

    A cell names one file, or with `*` the slices of a stack in numeric order; a trailing `#1` picks the second
    channel. An empty mask means no mask, an empty site that it is unknown. `labels` names a known label scheme, or a
    JSON file with one; without that column masks are binary. `class` is the class of the whole image; `part`, train or
    test, is the part to which the data set's authors assigned it.
    """

    name = "manifest"
    takes_labels = True
    describes = (
        "a CSV, or a folder with manifest.csv: columns case,patient,site,<one per modality>,mask,labels,class,part"
    )
    order = 0  # written on purpose
    lists_cases = True

    def recognises(self, root: Path) -> bool:
        """A CSV file, or a folder that holds a manifest.csv."""
        if root.is_dir():
            return any(file.name.lower() == FILE_NAME for file in data_files(root))
        return root.suffix.lower() == ".csv"

    def cases(self, root: Path, scheme: LabelScheme | None = None) -> tuple[Case, ...]:
        """In the manifest's order. Raises DataError naming the line."""
        file = file_called(root, FILE_NAME) if root.is_dir() else root
        if file is None:
            return ()
        lines = _lines(file)
        cases: dict[str, Case] = {}
        for number, line in lines:
            case = _case(file, number, line, scheme)
            if case.id in cases:
                raise DataError(f"{file}:{number}: case {case.id} is listed twice; give every case its own id")
            cases[case.id] = case
        return tuple(cases.values())


def _lines(file: Path) -> list[tuple[int, dict[str, str]]]:
    """Line number and cells by column, stripped and `composed`; empty lines are left out."""
    with reading_csv(file), file.open(newline="", encoding="utf-8-sig") as text:
        reader = csv.reader(text)
        lines = [(reader.line_num, [composed(cell).strip() for cell in cells]) for cells in reader]
    for number, cells in lines:
        if any("\n" in cell or "\r" in cell for cell in cells):
            raise DataError(f"{file}:{number}: a cell runs over several lines; close its quotes, or take the break out")
    columns = _columns(file, lines[0][1] if lines else [])
    numbered = []
    for number, cells in lines[1:]:
        if not any(cells):
            continue
        if len(cells) != len(columns):
            raise DataError(f"{file}:{number}: has {len(cells)} cells, the header {len(columns)}; complete the line")
        numbered.append((number, dict(zip(columns, cells, strict=True))))
    return numbered


def _columns(file: Path, header: list[str]) -> list[str]:
    columns = [name.lower() for name in header]
    columns = [name if name in OTHER_COLUMNS else canonical_modality(name) for name in columns]
    header_text = ", ".join(header) or "none"
    for required in ("case", "patient"):
        if required not in columns:
            raise DataError(f"{file}:1: has no column {required} (found: {header_text}); add it, separated by commas")
    if set(columns) <= set(OTHER_COLUMNS):
        raise DataError(
            f"{file}:1: has no modality column (found: {header_text}); add one per modality, such as t1 or flair"
        )
    mask_like = next(
        (name for name in columns if name not in OTHER_COLUMNS and (is_mask_name(name) or name == "lesion")), None
    )
    if mask_like is not None:
        problem = f"column {mask_like} would be a modality, and holds masks by its name"
        raise DataError(f"{file}:1: {problem}; call it mask, remove it, or rename it if it holds images")
    misspelt = next((name for name in columns if name not in OTHER_COLUMNS and similar(name, ["mask"])), None)
    if misspelt is not None and "mask" not in columns:
        raise DataError(f"{file}:1: column {misspelt} would be a modality; did you mean mask? rename it in any case")
    repeated = next((name for name in columns if columns.count(name) > 1 or not name), None)
    if repeated is not None:
        raise DataError(f"{file}:1: column {repeated or 'without a name'} is repeated or empty; name each once")
    return columns


def _case(file: Path, number: int, line: Mapping[str, str], stated: LabelScheme | None) -> Case:
    modalities = [column for column in line if column not in OTHER_COLUMNS]
    for column in ("case", "patient", *modalities):
        if not line[column]:
            raise DataError(f"{file}:{number}: {column} is empty; fill it in or remove the line")
    labels = line.get("labels")
    scheme = _scheme(file, number, labels) if labels else stated or BINARY
    if stated not in (None, UNSTATED, scheme):
        raise DataError(f"{file}:{number}: labels is {labels}, and --labels differs; leave --labels out")
    part = line.get("part", "").lower()
    if part and part not in PARTS:
        raise DataError(f"{file}:{number}: part {part} is not known; write train or test, or leave it empty")
    mask = line.get("mask")
    return Case(
        id=line["case"],
        patient=line["patient"],
        site=line.get("site") or UNKNOWN_SITE,
        images={modality: _source(file, number, line[modality]) for modality in modalities},
        mask=_source(file, number, mask) if mask else None,
        scheme=scheme,
        class_name=line.get("class") or None,
        part=PARTS.get(part),
    )


def _scheme(file: Path, number: int, stated: str) -> LabelScheme:
    """The scheme of this name, or in this JSON file. Raises DataError naming the line or that file."""
    if stated in SCHEMES:
        return SCHEMES[stated]
    if not is_scheme_path(stated):
        raise DataError(
            f"{file}:{number}: labels {stated} is not known; write one of {', '.join(SCHEMES)}, or a JSON file's name"
        )
    return read_scheme(found_path(confined(file.parent, stated, f"{file}:{number}", OUTSIDE, follow_links=True)))


def _source(file: Path, number: int, cell: str) -> Source:
    """`scan.nii.gz`, `scan.nii.gz#1` or `slices/*_flair.png`."""
    name = CHANNEL.sub("", cell)
    channel = int(cell.rpartition("#")[2]) if name != cell else None
    path = found_path(confined(file.parent, name, f"{file}:{number}", OUTSIDE, follow_links=True))
    if "*" not in path.name:
        return Source((path,), channel)
    try:
        patterns = {path.name, unicodedata.normalize("NFD", path.name)}
        matches = [match for pattern in patterns for match in path.parent.glob(pattern) if is_data_name(match.name)]
    except ValueError as error:
        raise DataError(f"{file}:{number}: {name} is no pattern ({error}); write one * for what varies") from None
    files = in_numeric_order(by_stem(sorted(set(matches)), "the slice").values())
    if not files:
        raise DataError(f"{file}:{number}: no file matches {name}; correct the pattern")
    if len(files) > 1 and any(is_nifti(match) for match in files):
        raise DataError(
            f"{file}:{number}: {name} matches {len(files)} files, {files[0].name} and {files[1].name} among them, "
            "which are no slices; name the one"
        )
    return Source(files, channel)


READER = ManifestReader()

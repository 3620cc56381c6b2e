"""BraTS as released: one folder per case, one NIfTI file per modality."""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Iterator, Mapping
from itertools import chain
from pathlib import Path

from ganseg_dist.data.cohort import MODALITIES, UNKNOWN_SITE, Case, Source
from ganseg_dist.data.labels import BINARY, BRATS, BRATS_2023, BRATS_2024_GLI, UNSTATED, LabelScheme
from ganseg_dist.data.listing import data_files, data_folders, is_nifti, without_suffix
from ganseg_dist.data.readers.shared.base import Reader, canonical_modality, one_of, reading_csv, same_image
from ganseg_dist.errors import DataError

OLD_NAMES = ("t1", "t1ce", "t2", "flair")
"""2018 to 2021: `BraTS20_Training_001/BraTS20_Training_001_t1ce.nii.gz`."""

NEW_NAMES = ("t1n", "t1c", "t2w", "t2f")
"""2023 on: `BraTS-GLI-00000-000/BraTS-GLI-00000-000-t1c.nii.gz`."""

OTHER_NAMES = ("t1gd",)
"""UPENN-GBM: `UPENN-GBM-00001_11/UPENN-GBM-00001_11_T1GD.nii.gz`."""

MASK_NAMES = ("seg", "gtv")
"""The radiotherapy set has a gross tumour volume: `BraTS-MEN-RT-0000-1/BraTS-MEN-RT-0000-1_gtv.nii.gz`."""

OLD_ID = re.compile(r"brats1[789]_(?P<site>2013|CBICA|TCIA\d*|TMC)_(?P<patient>.+)_\d+", re.IGNORECASE)
"""2017 to 2019 name the institution; the last number counts the patient's scans."""

NEW_ID = re.compile(r"(?P<patient>brats-[a-z-]+-\d{4,5})-\d{1,3}", re.IGNORECASE)
"""Names from 2023 on end in the timepoint."""

SCHEMES_BY_NAME: tuple[tuple[re.Pattern[str], frozenset[str], LabelScheme], ...] = (
    (re.compile(r"(brats(1[789]|20|2021)|fets\d*)_.+", re.IGNORECASE), frozenset(OLD_NAMES), BRATS),
    (re.compile(r"brats-men-rt-.+", re.IGNORECASE), frozenset(("t1c",)), BINARY),
    (re.compile(r"brats-gli-.+", re.IGNORECASE), frozenset(NEW_NAMES), BRATS_2024_GLI),
    (re.compile(r"brats-(ssa|men(?!-rt)|met|goat)-.+", re.IGNORECASE), frozenset(NEW_NAMES), BRATS_2023),
)
"""Pattern of a case's name, its modality names, and the label scheme that these imply; the first match counts.

The children's sets of 2023 and of 2024 share names and differ in all values, so BraTS-PED is not included.
"""

DEEPEST = 4
"""Most folders between the root and a case: releases are nested, and hold HGG/ and LGG/."""

TCGA_ID = re.compile(r"(?P<site>TCGA-\w{2})-\w{4}")


class BratsReader(Reader):
    """BraTS 2017 to 2021 and 2023 on, distinguished by the names of cases and files."""

    name = "brats"
    describes = "BraTS 2017 on: one folder a case with <case>_t1ce.nii.gz or <case>-t1c.nii.gz beside its seg file"
    takes_labels = True

    def recognises(self, root: Path) -> bool:
        """Whether a folder holds modalities whose names begin with the folder's."""
        return root.is_dir() and any(_named_scans(folder) for folder in chain([root], data_folders(root, DEEPEST)))

    def cases(self, root: Path, scheme: LabelScheme | None = None) -> tuple[Case, ...]:
        """A modality that has no file is left out of its case; a case without a seg file has no mask.

        Raises DataError naming two files of one modality, or two folders of one case, that differ.
        """
        folders: dict[str, Path] = {}
        images: dict[str, Mapping[str, Path]] = {}
        for folder in chain([root], data_folders(root, DEEPEST)):
            named = {name: one_of(files, f"{name} of {folder.name}") for name, files in _named_scans(folder).items()}
            if not named:
                continue
            if (first := folders.setdefault(folder.name, folder)) == folder:
                images[folder.name] = named
            elif not _is_copy(first, folder):
                raise DataError(f"{first}: holds another case of the name {folder.name} than {folder}; rename one")
        sites = _mapped_sites(root, folders)
        return tuple(_case(folders[case], images[case], sites, scheme) for case in sorted(folders))


def _named_scans(folder: Path) -> Mapping[str, list[Path]]:
    """A folder's scans by the modality in their names."""
    scans: dict[str, list[Path]] = {}
    for file in _scans(folder):
        if (name := _after_case(file)[1:].lower()) in (*OLD_NAMES, *NEW_NAMES, *OTHER_NAMES):
            scans.setdefault(name, []).append(file)
    return scans


def _scans(folder: Path) -> list[Path]:
    return [file for file in data_files(folder) if is_nifti(file)]


def _after_case(file: Path) -> str:
    """`_t1ce` of `CASE/CASE_t1ce.nii.gz`; empty where the name does not begin with the folder's."""
    stem, case = without_suffix(file.name), file.parent.name
    rest = stem[len(case) :] if stem.lower().startswith(case.lower()) else ""
    return rest if rest.startswith(("_", "-")) else ""


def _case(folder: Path, named: Mapping[str, Path], sites: Mapping[str, str], scheme: LabelScheme | None) -> Case:
    patient, site = _patient_and_site(folder.name)
    mask = _mask_file(folder, named.values())
    images = _by_modality(folder, named)
    return Case(
        id=folder.name,
        patient=patient,
        site=sites.get(folder.name, site),
        images={modality: Source((images[modality],)) for modality in MODALITIES if modality in images},
        mask=None if mask is None else Source((mask,)),
        scheme=_scheme(folder.name, named) if scheme is None else scheme,
    )


def _by_modality(folder: Path, named: Mapping[str, Path]) -> Mapping[str, Path]:
    """The folder's files by our modality names; `t1c` and `t1ce` are the same modality."""
    candidates: dict[str, list[Path]] = {}
    for name, file in named.items():
        candidates.setdefault(canonical_modality(name), []).append(file)
    return {modality: one_of(files, f"{modality} of {folder.name}") for modality, files in candidates.items()}


def _scheme(case: str, images: Collection[str]) -> LabelScheme:
    matching = (scheme for name, style, scheme in SCHEMES_BY_NAME if name.fullmatch(case) and style.issuperset(images))
    return next(matching, UNSTATED)


def _mask_file(folder: Path, images: Collection[Path]) -> Path | None:
    """`<case>_seg`, else the one other file with `seg` in its name: 2020 has a mask called `W39_1998.09.19_Segm.nii`.

    Raises DataError where there are several others and none of them is a copy.
    """
    exact, others = [], []
    for file in _scans(folder):
        if file in images:
            continue
        rest = _after_case(file).lower()
        if rest[1:] in MASK_NAMES:
            exact.append(file)
        elif any(name in (rest or file.name.lower()) for name in MASK_NAMES):
            others.append(file)
    candidates = exact or others
    return one_of(candidates, f"the mask of {folder.name}") if candidates else None


def _is_copy(first: Path, second: Path) -> bool:
    """Whether two folders hold the same scans under the same names."""
    scans, copies = ({file.name: file for file in _scans(folder)} for folder in (first, second))
    return scans.keys() == copies.keys() and all(same_image(scans[name], copies[name]) for name in scans)


def _patient_and_site(case: str) -> tuple[str, str]:
    if old := OLD_ID.fullmatch(case):
        return f"{old['site']}_{old['patient']}", old["site"]
    timed = NEW_ID.fullmatch(case)
    return (timed["patient"] if timed else case), UNKNOWN_SITE


def _mapped_sites(root: Path, cases: Collection[str]) -> Mapping[str, str]:
    """Case to site from `name_mapping.csv`, each row of which lists a case's ids in several years' releases.

    Raises DataError naming two rows that give one case two sites.
    """
    sites: dict[str, str] = {}
    lines: dict[str, str] = {}
    for file in _mappings(root):
        with reading_csv(file), file.open(newline="", encoding="utf-8-sig", errors="replace") as text:
            head = text.readline()
            text.seek(0)
            rows = csv.DictReader(text, delimiter=";" if head.count(";") > head.count(",") else ",")
            for row in rows:
                cells = {(column or "").strip().lower(): str(value).strip() for column, value in row.items()}
                site, line = _site_of_row(cells), f"{file}:{rows.line_num}"
                for case in set(cells.values()).intersection(cases) if site is not None else ():
                    if sites.setdefault(case, site or "") != site:
                        raise DataError(f"{line}: {case} is of {site}, by {lines[case]} of {sites[case]}; correct one")
                    lines.setdefault(case, line)
    return sites


def _mappings(root: Path) -> Iterator[Path]:
    for folder in chain([root], data_folders(root, DEEPEST)):
        for file in data_files(folder):
            if file.name.lower().startswith("name_mapping") and file.suffix.lower() == ".csv":
                yield file


def _site_of_row(cells: Mapping[str, str]) -> str | None:
    """The `site` column; else the institution in a TCGA id; else the one in an id of 2017 to 2019."""
    stated = next((value for column, value in cells.items() if column.startswith("site") and value), None)
    if stated is not None:
        return stated
    for pattern in (TCGA_ID, OLD_ID):
        for value in cells.values():
            if match := pattern.fullmatch(value):
                return match["site"]
    return None


READER = BratsReader()

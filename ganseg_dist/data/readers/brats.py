"""BraTS as released: a folder a case, a NIfTI file a modality."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from ganseg_dist.data.cohort import MODALITIES, UNKNOWN_SITE, Case, Source
from ganseg_dist.data.formats import NIFTI_SUFFIXES, is_nifti
from ganseg_dist.data.labels import BRATS, BRATS_2023
from ganseg_dist.data.readers.base import canonical_modality, reading_csv

OLD_NAMES = ("t1", "t1ce", "t2", "flair")
"""2018 to 2021: `BraTS20_Training_001/BraTS20_Training_001_t1ce.nii.gz`."""

NEW_NAMES = ("t1n", "t1c", "t2w", "t2f")
"""2023 on: `BraTS-GLI-00000-000/BraTS-GLI-00000-000-t1c.nii.gz`."""

OLD_ID = re.compile(r"brats1[789]_(?P<site>2013|CBICA|TCIA\d*|TMC)_(?P<patient>.+)_\d+", re.IGNORECASE)
"""2017 to 2019 name the institution; the last number counts the patient's scans."""

NEW_ID = re.compile(r"(?P<patient>.+)-\d{3}")
"""2023 on ends in the timepoint."""

DEEPEST = 4
"""Folders between the root and a case: releases nest themselves, and HGG/ and LGG/ inside."""

TCGA_ID = re.compile(r"(?P<site>TCGA-\w{2})-\w{4}")


class BratsReader:
    """BraTS 2018 to 2021 and 2023 on, told apart by how the files are called."""

    name = "brats"
    describes = "BraTS 2018 on: one folder a case with <case>_t1ce.nii.gz or <case>-t1c.nii.gz beside its seg file"

    def recognises(self, root: Path) -> bool:
        """Whether some folder holds modalities that carry the folder's name."""
        return root.is_dir() and next(_case_folders(root), None) is not None

    def cases(self, root: Path) -> tuple[Case, ...]:
        """A modality that has no file is left out of its case; a case without a seg file has no mask."""
        sites = _mapped_sites(root)
        cases = (_case(folder, images, sites) for folder, images in _case_folders(root))
        return tuple(sorted(cases, key=lambda case: case.id))


def _case_folders(root: Path) -> Iterator[tuple[Path, Mapping[str, Path]]]:
    """Each folder with its files by the data set's own modality names."""
    for path, subfolders, names in os.walk(root, followlinks=True):
        folder = Path(path)
        if len(folder.relative_to(root).parts) >= DEEPEST:
            subfolders.clear()
        images = {
            modality: folder / file
            for style, separator in ((OLD_NAMES, "_"), (NEW_NAMES, "-"))
            for modality in style
            for suffix in NIFTI_SUFFIXES
            if (file := f"{folder.name}{separator}{modality}{suffix}") in names
        }
        if images:
            yield folder, images


def _case(folder: Path, images: Mapping[str, Path], sites: Mapping[str, str]) -> Case:
    is_new = not set(images) <= set(OLD_NAMES)
    found = {canonical_modality(modality): Source((file,)) for modality, file in images.items()}
    patient, site = _patient_and_site(folder.name, is_new)
    mask = _mask_file(folder)
    return Case(
        id=folder.name,
        patient=patient,
        site=sites.get(folder.name, site),
        images={modality: found[modality] for modality in MODALITIES if modality in found},
        mask=None if mask is None else Source((mask,)),
        scheme=BRATS_2023 if is_new else BRATS,
    )


def _mask_file(folder: Path) -> Path | None:
    """By `seg` in what follows the folder's name: a case of 2020 has a mask called `W39_1998.09.19_Segm.nii`."""
    files = sorted(file for file in folder.iterdir() if is_nifti(file))
    return next((file for file in files if "seg" in file.name.removeprefix(folder.name).lower()), None)


def _patient_and_site(case: str, is_new: bool) -> tuple[str, str]:
    if is_new:
        timed = NEW_ID.fullmatch(case)
        return (timed["patient"] if timed else case), UNKNOWN_SITE
    told = OLD_ID.fullmatch(case)
    return (f"{told['site']}_{told['patient']}", told["site"]) if told else (case, UNKNOWN_SITE)


def _mapped_sites(root: Path) -> Mapping[str, str]:
    """Case to site from `name_mapping.csv`, each row of which lists a case's ids through the years."""
    sites = {}
    for file in sorted(root.rglob("name_mapping*.csv")):
        with reading_csv(file), file.open(newline="", encoding="utf-8-sig", errors="replace") as rows:
            for row in csv.DictReader(rows):
                cells = {(column or "").strip().lower(): str(value).strip() for column, value in row.items()}
                site = _site_of_row(cells)
                if site is not None:
                    sites.update(dict.fromkeys(cells.values(), site))
    return sites


def _site_of_row(cells: Mapping[str, str]) -> str | None:
    """The `site` column; else the institution of a TCGA id; else the one that the ids of 2017 to 2019 name."""
    stated = next((value for column, value in cells.items() if column.startswith("site") and value), None)
    if stated is not None:
        return stated
    for pattern in (TCGA_ID, OLD_ID):
        for value in cells.values():
            if match := pattern.fullmatch(value):
                return match["site"]
    return None

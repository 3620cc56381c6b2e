"""Phantoms on disk: a cohort in the layout of BraTS 2020, marked as synthetic."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from ganseg_dist.atomic import UNFINISHED, discard_folder, unfinished_folder, write_csv, write_file, write_text
from ganseg_dist.data.cohort import MODALITIES
from ganseg_dist.data.grid import Grid
from ganseg_dist.data.labels import Labels
from ganseg_dist.data.phantom import anatomy, scanner, tumour
from ganseg_dist.errors import ConfigError, DataError
from ganseg_dist.files import read_json

GENERATOR_VERSION = 1
"""Incremented whenever the same settings would give different voxels."""
NOTICE = (
    "Synthetic: a phantom made from the MNI152 average anatomy with drawn tumours. "
    "No patient was scanned; figures measured here do not apply to patients."
)
ABOUT = "PHANTOM.json"
NAMES = "name_mapping.csv"
UNFINISHED_CASES = f"{UNFINISHED}cases"
SPACING_MM = (0.5, 8.0)
HIGH_GRADE_SHARE = 0.75

Voxels = npt.NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class Subject:
    """The description of one phantom."""

    id: str
    grade: str
    """HGG: enhances. LGG: little or not at all. NA: healthy."""
    site: scanner.Site
    key: tuple[int, int, int]
    """Seed, kind (0 patient, 1 healthy) and number within the kind; they determine its anatomy."""


def make_phantom(
    out: Path,
    *,
    patients: int,
    sites: int,
    seed: int,
    healthy: int | None = None,
    spacing_mm: float = 2.0,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write a synthetic cohort, a phantom, in the layout of BraTS 2020.

    The patients are followed by `healthy` subjects (by default a quarter as many) with empty masks. Subjects
    are assigned to the sites in turn. Patient k is the same for any number of patients, healthy subjects and
    sites, except for the site that scans it; the same arguments give the same bytes.

    Each case is written as a whole: after an interruption the same call adds the missing ones. `progress` is
    called with (cases done, all cases) after each case, those already there included.

    Raises ConfigError on an argument out of range, MissingDependency without nilearn, DataError when `out` holds
    something other than a phantom of these settings, and GansegError naming a file that cannot be written.
    """
    healthy = patients // 4 if healthy is None else healthy
    _check_arguments(patients, sites, seed, healthy, spacing_mm)
    subjects = _plan(patients, sites, seed, healthy)
    settings = {
        "patients": patients, "healthy": healthy, "sites": sites, "seed": seed, "spacing_mm": float(spacing_mm),
    }  # fmt: skip
    _check_folder(out, settings)
    missing = [subject for subject in subjects if not _is_complete(out, subject)]
    atlas = anatomy.load_atlas(spacing_mm) if missing else None
    _describe(out, settings, subjects)
    for done, subject in enumerate(subjects, start=1):
        if atlas is not None and subject in missing:
            _write_case(out, subject, atlas, spacing_mm)
        if progress is not None:
            progress(done, len(subjects))
    shutil.rmtree(out / UNFINISHED_CASES, ignore_errors=True)


def make_subject(subject: Subject, atlas: anatomy.Atlas, spacing_mm: float) -> tuple[dict[str, Voxels], Labels, Grid]:
    """One phantom's four modalities, its labels (0, 1, 2, 4), each (X, Y, Z), and their grid."""
    # One stream of random numbers per step: more samples in one do not change the others.
    shape_rng, lesion_rng, growth_rng, scan_rng = np.random.default_rng(subject.key).spawn(4)
    grid = anatomy.phantom_grid(spacing_mm)
    points = anatomy.sample_deformation(shape_rng, grid)
    brain = anatomy.sample_brain(atlas, points, grid)
    lesions = tumour.no_tumour(grid)
    if subject.grade != "NA":
        sampled = tumour.sample_lesions(lesion_rng, brain)
        brain = anatomy.sample_brain(atlas, tumour.push_aside(points, sampled, brain), grid)
        lesions = tumour.grow_tumour(growth_rng, sampled, brain, enhances=subject.grade == "HGG")
    images = scanner.acquire(scan_rng, subject.site, brain, lesions)
    return images, lesions.labels, grid


def _plan(patients: int, sites: int, seed: int, healthy: int) -> list[Subject]:
    scanners = [scanner.sample_site(seed, index) for index in range(sites)]
    keys = [(seed, 0, number) for number in range(patients)] + [(seed, 1, number) for number in range(healthy)]
    return [
        Subject(f"BraTS20_Training_{position:03d}", _grade(key), scanners[key[2] % sites], key)
        for position, key in enumerate(keys, start=1)
    ]


def _grade(key: tuple[int, int, int]) -> str:
    if key[1] == 1:
        return "NA"
    return "HGG" if np.random.default_rng([*key, 1]).random() < HIGH_GRADE_SHARE else "LGG"


def _check_arguments(patients: int, sites: int, seed: int, healthy: int, spacing_mm: float) -> None:
    if patients < 1:
        raise ConfigError(f"patients: {patients} is too few; give at least 1")
    if healthy < 0:
        raise ConfigError(f"healthy: {healthy} is negative; give 0 or more")
    if not 1 <= sites <= patients:
        raise ConfigError(f"sites: {sites} for {patients} patients; give 1 to {patients}, so that each has one")
    if seed < 0:
        raise ConfigError(f"seed: {seed} is negative; give 0 or more")
    if not SPACING_MM[0] <= spacing_mm <= SPACING_MM[1]:
        raise ConfigError(f"spacing_mm: {spacing_mm:g} is outside {SPACING_MM[0]:g} to {SPACING_MM[1]:g}")


def _check_folder(out: Path, settings: dict[str, Any]) -> None:
    """Raises DataError unless `out` is new or empty, or holds a phantom of these settings."""
    about = out / ABOUT
    if not about.exists():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise DataError(f"{out}: exists and is no phantom; give a new folder")
        return
    try:
        stored = read_json(about)
        stored_settings = {**stored["settings"], "generator_version": stored["generator_version"]}
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(f"{about}: cannot be read; delete the folder or give a new one") from None
    expected = {**settings, "generator_version": GENERATOR_VERSION}
    differing = [
        f"{name} {stored_settings.get(name)}, not {value}"
        for name, value in expected.items()
        if stored_settings.get(name) != value
    ]
    if differing:
        raise DataError(f"{out}: holds a phantom with {'; '.join(differing)}: give a new folder or delete this one")


def _describe(out: Path, settings: dict[str, Any], subjects: list[Subject]) -> None:
    """Write the notice and the site of every case, before the first image."""
    about = {
        "phantom": True,
        "notice": NOTICE,
        "anatomy": "MNI152 (ICBM 2009a) T1, grey- and white-matter maps, deformed",
        "generator_version": GENERATOR_VERSION,
        "settings": settings,
        "sites": {subject.site.name: asdict(subject.site) for subject in subjects},
        "healthy": [subject.id for subject in subjects if subject.grade == "NA"],
    }
    write_text(out / ABOUT, json.dumps(about, indent=2) + "\n")  # first: it identifies the folder as a phantom
    rows = [
        {"Grade": subject.grade, "BraTS_2020_subject_ID": subject.id, "site": subject.site.name} for subject in subjects
    ]
    write_csv(out / NAMES, rows)


def _write_case(out: Path, subject: Subject, atlas: anatomy.Atlas, spacing_mm: float) -> None:
    images, labels, grid = make_subject(subject, atlas, spacing_mm)
    with unfinished_folder(out / UNFINISHED_CASES) as temporary:
        unfinished = temporary / subject.id  # a file that cannot be written is named by the case's folder
        unfinished.mkdir()
        for modality, voxels in images.items():
            _save(voxels, grid, unfinished / _file_name(subject, modality))
        _save(labels, grid, unfinished / _file_name(subject, "seg"))
        discard_folder(out / subject.id)
        unfinished.rename(out / subject.id)


def _save(voxels: Voxels | Labels, grid: Grid, path: Path) -> None:
    image = nib.Nifti1Image(voxels, grid.affine)
    image.header.set_xyzt_units("mm")
    for set_form in (image.set_sform, image.set_qform):
        set_form(grid.affine, code="mni")
    # nibabel's own gzip stamps the clock into the file; two runs must give the same bytes.
    packed = gzip.compress(image.to_bytes(), compresslevel=6, mtime=0)
    write_file(path, lambda unfinished: unfinished.write_bytes(packed))


def _is_complete(out: Path, subject: Subject) -> bool:
    return all((out / subject.id / _file_name(subject, name)).is_file() for name in (*MODALITIES, "seg"))


def _file_name(subject: Subject, name: str) -> str:
    return f"{subject.id}_{name}.nii.gz"

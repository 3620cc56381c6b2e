"""Cases, sites, patients, and the split by patient that everything that learns must respect."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ganseg_dist.errors import DataError

MODALITIES = ("t1", "t1ce", "t2", "flair")
"""The names readers translate to, in the order channels are stacked; a manifest may add others."""

UNKNOWN_SITE = "unknown"

BRATS_LABELS = {0: 0, 1: 1, 2: 2, 4: 3}
"""BraTS 2018-2021 labels to ours: 1 necrotic core, 2 oedema, 3 enhancing tumour."""
BRATS_2023_LABELS = {0: 0, 1: 1, 2: 2, 3: 3}
BINARY_LABELS = {0: 0, 1: 1}

BRATS_REGIONS = ("wt", "tc", "et")
BINARY_REGIONS = ("wt",)


@dataclass(frozen=True, slots=True)
class Source:
    """Where one volume's voxels are: one 3-D or 4-D file, or a stack of 2-D files in slice order."""

    files: tuple[Path, ...]
    channel: int | None = None
    """Which channel of multi-channel files; none: they have one."""


@dataclass(frozen=True, slots=True)
class Case:
    """One imaging session of one patient, still on disk."""

    id: str
    patient: str
    site: str
    images: Mapping[str, Source]
    """Modality to source."""
    mask: Source | None = None
    labels: Mapping[int, int] = field(default_factory=lambda: dict(BINARY_LABELS))
    """Label values in the mask file to ours. A binary picture mask may write 255 for 1."""
    regions: tuple[str, ...] = BINARY_REGIONS
    """The regions these labels can tell apart."""


@dataclass(frozen=True, slots=True)
class Cohort:
    """Every case under one root, as one layout reader found them."""

    root: Path
    layout: str
    cases: tuple[Case, ...]

    @property
    def patients(self) -> tuple[str, ...]:
        """Patient names, sorted, each once."""
        return tuple(sorted({case.patient for case in self.cases}))

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities that every case has, in canonical order, then the manifest's own in name order."""
        if not self.cases:
            return ()
        shared = set.intersection(*(set(case.images) for case in self.cases))
        return (*(m for m in MODALITIES if m in shared), *sorted(shared - set(MODALITIES)))

    @property
    def regions(self) -> tuple[str, ...]:
        """Regions that every masked case's labels can tell apart."""
        masked = [case.regions for case in self.cases if case.mask is not None]
        if not masked:
            return ()
        return tuple(region for region in BRATS_REGIONS if all(region in regions for regions in masked))

    def without(self, case_ids: Iterable[str]) -> Cohort:
        """The cohort less these cases."""
        dropped = set(case_ids)
        return Cohort(self.root, self.layout, tuple(case for case in self.cases if case.id not in dropped))

    @property
    def unlabelled(self) -> tuple[str, ...]:
        """Cases without a mask: nobody knows which of their slices are healthy."""
        return tuple(case.id for case in self.cases if case.mask is None)

    def of_patients(self, patients: Iterable[str]) -> tuple[Case, ...]:
        """These patients' cases, in cohort order."""
        wanted = set(patients)
        return tuple(case for case in self.cases if case.patient in wanted)


@dataclass(frozen=True, slots=True)
class Split:
    """Patients by what they are used for; no patient stands in two parts."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    def __post_init__(self) -> None:
        everyone = (*self.train, *self.validation, *self.test)
        if len(set(everyone)) != len(everyone):
            raise DataError("split: a patient stands in two parts; split by patient before anything learns")

    def to_dict(self) -> dict[str, list[str]]:
        """For JSON."""
        return {part: list(patients) for part, patients in asdict(self).items()}

    @classmethod
    def from_dict(cls, parts: Mapping[str, Any]) -> Split:
        """The inverse of `to_dict`."""
        return cls(*(tuple(parts[name]) for name in ("train", "validation", "test")))


def split_by_patient(cohort: Cohort, *, validation: float, test: float, seed: int) -> Split:
    """Draw validation and test patients, each part spread over the sites.

    Patients are shuffled within their site and dealt out so that after every patient the parts' sizes are
    as near as they can be to their fractions, site after site: a part smaller than the number of sites
    still takes its patients from different ones.

    Raises DataError when a part with a fraction above 0 would stay empty.
    """
    home = {case.patient: case.site for case in sorted(cohort.cases, key=lambda case: (case.patient, case.site))}
    by_site: dict[str, list[str]] = {}
    for patient, site in home.items():  # a patient seen at two sites counts at one
        by_site.setdefault(site, []).append(patient)
    fractions = {"train": 1 - validation - test, "validation": validation, "test": test}
    parts: dict[str, list[str]] = {name: [] for name in fractions}
    rng = np.random.default_rng(seed)
    dealt = 0
    for site in sorted(by_site):
        here = dict.fromkeys(parts, 0)
        for patient in rng.permutation(sorted(by_site[site])):
            dealt += 1
            due = {
                name: (fraction * dealt - len(parts[name])) - here[name] * 1e-3
                for name, fraction in fractions.items()
                if fraction > 0
            }
            chosen = max(due, key=lambda name: due[name])
            parts[chosen].append(str(patient))
            here[chosen] += 1
    for name, fraction in fractions.items():
        if fraction > 0 and not parts[name]:
            raise DataError(
                f"{cohort.root}: {len(cohort.patients)} patients leave none for {name}; "
                f"add patients or lower data.validation_fraction and data.test_fraction"
            )
    return Split(*(tuple(sorted(parts[name])) for name in ("train", "validation", "test")))

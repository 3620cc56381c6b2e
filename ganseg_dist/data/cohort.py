"""Cases, sites, patients, and the split by patient."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ganseg_dist.config import RunConfig
from ganseg_dist.data.labels import BINARY, BRATS_REGIONS, LabelScheme, most_common_scheme
from ganseg_dist.errors import DataError

MODALITIES = ("t1", "t1ce", "t2", "flair")
"""The names that readers translate to, in the order in which channels are stacked; a manifest may add others."""

COLOURS = ("red", "green", "blue")
"""The modalities of a picture in colour."""

GREY = "grey"
"""The modality of a picture in shades of grey; its layout does not give the kind of image."""

UNKNOWN_SITE = "unknown"

SYNTHETIC_TAG = "SYNTHETIC.json"
"""The file that marks a folder whose images are all synthetic."""


def are_colours(modalities: Iterable[str]) -> bool:
    """Whether all of them are channels of a picture in colour."""
    return set(modalities) <= set(COLOURS)


def are_of_pictures(modalities: Iterable[str]) -> bool:
    """Whether all of them are channels of pictures, in colour or in shades of grey, which need not show a head."""
    return set(modalities) <= {*COLOURS, GREY}


@dataclass(frozen=True, slots=True)
class Source:
    """The files of one volume: one 3-D or 4-D file, or a stack of 2-D files in slice order."""

    files: tuple[Path, ...]
    channel: int | None = None
    """Channel of multi-channel files; None where they have one channel."""
    reads: Literal["not black", "colour code"] | None = None
    """How a mask's colours are read where no channel is named: as 1 wherever a pixel is not black, or as 0xRRGGBB,
    which distinguishes structures. None: the values as stored; of an image in colour, its luminance."""


@dataclass(frozen=True, slots=True)
class Case:
    """One imaging session of one patient, still on disk."""

    id: str
    patient: str
    site: str
    images: Mapping[str, Source]
    mask: Source | None = None
    scheme: LabelScheme = BINARY
    """The meaning of its mask's values. A binary picture mask may write 255 for 1."""
    colours: Mapping[int, int] | None = None
    """For a mask in colours: 0xRRGGBB to our labels."""
    class_name: str | None = None
    """Class of the whole image, such as glioma, where the layout names one."""
    part: Literal["train", "test"] | None = None
    """The part to which the data set's authors assigned it, if they did."""
    patient_known: bool = True
    """False where the patient is unknown and `patient` is the case's own name."""

    @property
    def first_image(self) -> Source:
        """The image of its first modality."""
        return next(iter(self.images.values()))

    @property
    def labels(self) -> Mapping[int, int]:
        """Values in the mask file to our labels."""
        return self.scheme.to_our_labels if self.colours is None else self.colours

    @property
    def regions(self) -> tuple[str, ...]:
        """The regions that its labels distinguish."""
        return tuple(self.scheme.regions)


@dataclass(frozen=True, slots=True)
class Cohort:
    """Every case under one root, as one layout reader found them."""

    root: Path
    layout: str
    cases: tuple[Case, ...]
    other_layouts: tuple[str, ...] = ()
    """Further layouts that the files match, where the user has named none."""
    labels: str | None = None
    """The label scheme that the user stated, which overrides the files' names."""

    @property
    def phantom(self) -> bool:
        """Whether its images were made by `ganseg phantom`."""
        return (self.root / "PHANTOM.json").exists()

    @property
    def synthetic(self) -> bool:
        """Whether a generator made its images, as `ganseg synthesize` writes them."""
        return (self.root / SYNTHETIC_TAG).exists()

    @property
    def patients(self) -> tuple[str, ...]:
        """Patient names, sorted, each once."""
        return tuple(sorted({case.patient for case in self.cases}))

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities that every case has: the known ones in canonical order, then a manifest's others in name order."""
        if not self.cases:
            return ()
        shared = set.intersection(*(set(case.images) for case in self.cases))
        canonical = (*MODALITIES, *COLOURS)
        return (*(m for m in canonical if m in shared), *sorted(shared - set(canonical)))

    @property
    def regions(self) -> tuple[str, ...]:
        """Regions that the labels of every case with a mask distinguish."""
        masked = [case.regions for case in self.cases if case.mask is not None]
        if not masked:
            return ()
        return tuple(region for region in BRATS_REGIONS if all(region in regions for regions in masked))

    @property
    def schemes(self) -> tuple[LabelScheme, ...]:
        """The label scheme of each case with a mask, reduced to the cohort's regions; in case order."""
        regions = self.regions
        return tuple(case.scheme.of_regions(regions) for case in self.cases if case.mask is not None)

    @property
    def scheme(self) -> LabelScheme:
        """The scheme by which a model of these cases writes masks: that of most of their masks."""
        return most_common_scheme(self.schemes)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the images' classes, sorted; empty where the layout names none."""
        return tuple(sorted({case.class_name for case in self.cases if case.class_name is not None}))

    def without(self, case_ids: Iterable[str]) -> Cohort:
        """The cohort without these cases."""
        dropped = set(case_ids)
        return replace(self, cases=tuple(case for case in self.cases if case.id not in dropped))

    @property
    def unlabelled(self) -> tuple[str, ...]:
        """Ids of the cases without a mask, whose healthy slices are unknown."""
        return tuple(case.id for case in self.cases if case.mask is None)

    def of_patients(self, patients: Iterable[str]) -> tuple[Case, ...]:
        """These patients' cases, in cohort order."""
        selected = set(patients)
        return tuple(case for case in self.cases if case.patient in selected)


@dataclass(frozen=True, slots=True)
class Split:
    """Patients by part. No patient is in two parts: raises DataError otherwise."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    def __post_init__(self) -> None:
        all_patients = (*self.train, *self.validation, *self.test)
        if len(set(all_patients)) != len(all_patients):
            raise DataError("split: a patient is in two parts; split by patient before training")

    def to_dict(self) -> dict[str, list[str]]:
        """For JSON."""
        return {part: list(patients) for part, patients in asdict(self).items()}

    @classmethod
    def from_dict(cls, parts: Mapping[str, Any]) -> Split:
        """The inverse of `to_dict`."""
        return cls(*(tuple(parts[name]) for name in ("train", "validation", "test")))

    def of(self, patients: Iterable[str]) -> Split:
        """The split restricted to these patients, such as those of one site."""
        selected = set(patients)
        return Split(*(tuple(p for p in part if p in selected) for part in (self.train, self.validation, self.test)))


def split_as_configured(cohort: Cohort, config: RunConfig) -> Split:
    """The split of a run of this config, from its seed and fractions. Raises as `split_by_patient` does."""
    fractions = config.data
    return split_by_patient(
        cohort, validation=fractions.validation_fraction, test=fractions.test_fraction, seed=config.seed
    )


def split_by_patient(cohort: Cohort, *, validation: float, test: float, seed: int, settings: str = "data") -> Split:
    """Sample validation and test patients, each part spread over the sites, and over the classes where they are known.

    Patients are shuffled within their site and assigned one by one, site after site, so that after each the parts'
    sizes are as near to their fractions as possible: a part with fewer patients than there are sites still
    takes them from different sites. With classes this is done class by class (`_assign_by_class`).

    Where the data set's authors named test cases, their patients are the test patients for any `test`, and
    `validation` is a share of the others.

    Args:
        settings: the table with the fractions' fields, as an error names them.

    Raises DataError when a part with a fraction above 0 would stay empty.
    """
    test_patients = {case.patient for case in cohort.cases if case.part == "test"}
    fractions = {"train": 1 - validation - test, "validation": validation, "test": test}
    if test_patients:
        fractions = {"train": 1 - validation, "validation": validation, "test": 0.0}
    site_of = {case.patient: case.site for case in sorted(cohort.cases, key=lambda case: (case.patient, case.site))}
    remaining = {patient: site for patient, site in site_of.items() if patient not in test_patients}
    rng = np.random.default_rng(seed)
    parts = (
        _assign_by_class(cohort, remaining, fractions, rng)
        if cohort.classes
        else _assign_parts(remaining, fractions, rng)
    )
    parts["test"] += sorted(test_patients)
    for name, fraction in fractions.items():
        if fraction > 0 and not parts[name]:
            raise DataError(
                f"{cohort.root}: {len(cohort.patients)} patients leave none for {name}; "
                f"add patients or lower {settings}.validation_fraction and {settings}.test_fraction"
            )
    return Split(*(tuple(sorted(parts[name])) for name in ("train", "validation", "test")))


def _assign_parts(
    site_of: Mapping[str, str], fractions: Mapping[str, float], rng: np.random.Generator
) -> dict[str, list[str]]:
    """Assign patients, given with their sites, to parts: the names of each part's patients."""
    parts: dict[str, list[str]] = {name: [] for name in fractions}
    dealt = 0
    for patients in _by_site(site_of).values():
        of_site = dict.fromkeys(parts, 0)
        for patient in rng.permutation(patients):
            dealt += 1
            deficit = {
                name: (fraction * dealt - len(parts[name])) - of_site[name] * 1e-3
                for name, fraction in fractions.items()
                if fraction > 0
            }
            chosen = max(deficit, key=lambda name: deficit[name])
            parts[chosen].append(str(patient))
            of_site[chosen] += 1
    return parts


def _assign_by_class(
    cohort: Cohort, site_of: Mapping[str, str], fractions: Mapping[str, float], rng: np.random.Generator
) -> dict[str, list[str]]:
    """The names of each part's patients. The rarest class comes first, as a patient may count for several classes.

    A class with as many patients as there are parts has at least one in each part: see `_quotas`.
    """
    members: dict[str, set[str]] = {name: set() for name in cohort.classes}
    for case in cohort.cases:
        if case.class_name is not None and case.patient in site_of:
            members[case.class_name].add(case.patient)
    classless = set(site_of).difference(*members.values())
    parts: dict[str, list[str]] = {name: [] for name in fractions}
    for group in (*sorted(members.values(), key=lambda patients: (len(patients), sorted(patients))), classless):
        placed = {name: len(group.intersection(part)) for name, part in parts.items()}
        unplaced = {patient: site_of[patient] for patient in sorted(group.difference(*parts.values()))}
        missing = {name: max(quota - placed[name], 0) for name, quota in _quotas(len(group), fractions).items()}
        added = dict.fromkeys(missing, 0)
        shuffled = [str(patient) for patients in _by_site(unplaced).values() for patient in rng.permutation(patients)]
        for number, patient in enumerate(shuffled, start=1):
            deficit = {name: number * missing[name] / sum(missing.values()) - added[name] for name in missing}
            chosen = max(deficit, key=lambda name: (deficit[name], -len(parts[name]) / fractions[name]))
            parts[chosen].append(patient)
            added[chosen] += 1
    return parts


def _quotas(patients: int, fractions: Mapping[str, float]) -> dict[str, int]:
    """How many of a class's patients each part takes: at least one for a part with a fraction; training takes the rest.

    Where a class has fewer patients than parts, training gets the first and test the second.
    """
    held_out = [name for name in ("test", "validation") if fractions[name] > 0]
    quotas = {"train": patients}
    for name in held_out:
        quotas[name] = min(max(round(fractions[name] * patients), 1), quotas["train"] - 1) if quotas["train"] > 1 else 0
        quotas["train"] -= quotas[name]
    return quotas


def _by_site(site_of: Mapping[str, str]) -> dict[str, list[str]]:
    """Sorted patients of each site, sites in name order; a patient seen at two sites counts at one."""
    sites: dict[str, list[str]] = {}
    for patient, site in site_of.items():
        sites.setdefault(site, []).append(patient)
    return {site: sorted(sites[site]) for site in sorted(sites)}

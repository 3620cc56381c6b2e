"""Cases, sites, patients, and the split by patient that everything that learns must respect."""

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
"""The names readers translate to, in the order channels are stacked; a manifest may add others."""

COLOURS = ("red", "green", "blue")
"""The modalities of a picture in colour."""

GREY = "grey"
"""The modality of a picture in shades of grey: of what, its layout does not say."""

UNKNOWN_SITE = "unknown"

SYNTHETIC_TAG = "SYNTHETIC.json"
"""The file that says of a folder that nothing in it is a patient."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where one volume's voxels are: one 3-D or 4-D file, or a stack of 2-D files in slice order."""

    files: tuple[Path, ...]
    channel: int | None = None
    """Which channel of multi-channel files; none: they have one."""
    reads: Literal["not black", "colour code"] | None = None
    """What is read of a mask's colours where no channel is named: 1 where there is any, or 0xRRGGBB, which tells its
    structures apart. None: the values as stored; of an image in colour, how bright it looks."""


@dataclass(frozen=True, slots=True)
class Case:
    """One imaging session of one patient, still on disk."""

    id: str
    patient: str
    site: str
    images: Mapping[str, Source]
    """Modality to source."""
    mask: Source | None = None
    scheme: LabelScheme = BINARY
    """What the values in its mask mean. A binary picture mask may write 255 for 1."""
    colours: Mapping[int, int] | None = None
    """Of a mask in colours, 0xRRGGBB to our labels."""
    class_name: str | None = None
    """What the whole image is, where the layout says so, such as glioma."""
    part: Literal["train", "test"] | None = None
    """The part that the data set's authors put it in, where they did."""
    patient_known: bool = True
    """False where `patient` is the case's own name for want of a better."""

    @property
    def labels(self) -> Mapping[int, int]:
        """Values in the mask file to our labels."""
        return self.scheme.ours if self.colours is None else self.colours

    @property
    def regions(self) -> tuple[str, ...]:
        """The regions that its labels can tell apart."""
        return tuple(self.scheme.regions)


@dataclass(frozen=True, slots=True)
class Cohort:
    """Every case under one root, as one layout reader found them."""

    root: Path
    layout: str
    cases: tuple[Case, ...]
    other_layouts: tuple[str, ...] = ()
    """Which else the files look like, where nobody has named one."""
    labels: str | None = None
    """The label scheme that somebody stated, whatever the files' names say."""

    @property
    def phantom(self) -> bool:
        """Whether its images were made by `ganseg phantom`."""
        return (self.root / "PHANTOM.json").exists()

    @property
    def synthetic(self) -> bool:
        """Whether its images were painted by a generator, as `ganseg synthesize` writes them."""
        return (self.root / SYNTHETIC_TAG).exists()

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
        canonical = (*MODALITIES, *COLOURS)
        return (*(m for m in canonical if m in shared), *sorted(shared - set(canonical)))

    @property
    def regions(self) -> tuple[str, ...]:
        """Regions that every masked case's labels can tell apart."""
        masked = [case.regions for case in self.cases if case.mask is not None]
        if not masked:
            return ()
        return tuple(region for region in BRATS_REGIONS if all(region in regions for regions in masked))

    @property
    def schemes(self) -> tuple[LabelScheme, ...]:
        """What the labels of the cohort's regions are in every mask, in order."""
        regions = self.regions
        return tuple(case.scheme.of_regions(regions) for case in self.cases if case.mask is not None)

    @property
    def scheme(self) -> LabelScheme:
        """What a model of these cases writes by: the scheme of most of their masks."""
        return most_common_scheme(self.schemes)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the images' classes, sorted; empty where the layout names none."""
        return tuple(sorted({case.class_name for case in self.cases if case.class_name is not None}))

    def without(self, case_ids: Iterable[str]) -> Cohort:
        """The cohort less these cases."""
        dropped = set(case_ids)
        return replace(self, cases=tuple(case for case in self.cases if case.id not in dropped))

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

    def of(self, patients: Iterable[str]) -> Split:
        """The same split of these patients alone, such as a site's own."""
        own = set(patients)
        return Split(*(tuple(p for p in part if p in own) for part in (self.train, self.validation, self.test)))


def split_as_configured(cohort: Cohort, config: RunConfig) -> Split:
    """The split that a run of this config draws: by patient, from its seed and fractions. Raises as that does."""
    fractions = config.data
    return split_by_patient(
        cohort, validation=fractions.validation_fraction, test=fractions.test_fraction, seed=config.seed
    )


def split_by_patient(cohort: Cohort, *, validation: float, test: float, seed: int) -> Split:
    """Draw validation and test patients, each part spread over the sites, and over the classes where they are known.

    Patients are shuffled within their site and dealt out so that after every patient the parts' sizes are
    as near as they can be to their fractions, site after site: a part smaller than the number of sites
    still takes its patients from different ones. With classes this is done class by class (`_dealt_by_class`).

    Where the data set's authors named test cases, their patients are the test patients whatever `test` is, and
    `validation` is a share of the others.

    Raises DataError when a part with a fraction above 0 would stay empty.
    """
    named = {case.patient for case in cohort.cases if case.part == "test"}
    fractions = {"train": 1 - validation - test, "validation": validation, "test": test}
    if named:
        fractions = {"train": 1 - validation, "validation": validation, "test": 0.0}
    home = {case.patient: case.site for case in sorted(cohort.cases, key=lambda case: (case.patient, case.site))}
    drawn = {patient: site for patient, site in home.items() if patient not in named}
    rng = np.random.default_rng(seed)
    parts = _dealt_by_class(cohort, drawn, fractions, rng) if cohort.classes else _dealt(drawn, fractions, rng)
    parts["test"] += sorted(named)
    for name, fraction in fractions.items():
        if fraction > 0 and not parts[name]:
            raise DataError(
                f"{cohort.root}: {len(cohort.patients)} patients leave none for {name}; "
                f"add patients or lower data.validation_fraction and data.test_fraction"
            )
    return Split(*(tuple(sorted(parts[name])) for name in ("train", "validation", "test")))


def _dealt(home: Mapping[str, str], fractions: Mapping[str, float], rng: np.random.Generator) -> dict[str, list[str]]:
    """Patients, given with their sites, by part."""
    parts: dict[str, list[str]] = {name: [] for name in fractions}
    dealt = 0
    for patients in _by_site(home).values():
        here = dict.fromkeys(parts, 0)
        for patient in rng.permutation(patients):
            dealt += 1
            due = {
                name: (fraction * dealt - len(parts[name])) - here[name] * 1e-3
                for name, fraction in fractions.items()
                if fraction > 0
            }
            chosen = max(due, key=lambda name: due[name])
            parts[chosen].append(str(patient))
            here[chosen] += 1
    return parts


def _dealt_by_class(
    cohort: Cohort, home: Mapping[str, str], fractions: Mapping[str, float], rng: np.random.Generator
) -> dict[str, list[str]]:
    """Patients by part, the rarest class first, as a patient of several classes counts for each of them.

    A class with as many patients as there are parts has at least one in each part: see `_quotas`.
    """
    members: dict[str, set[str]] = {name: set() for name in cohort.classes}
    for case in cohort.cases:
        if case.class_name is not None and case.patient in home:
            members[case.class_name].add(case.patient)
    classless = set(home).difference(*members.values())
    parts: dict[str, list[str]] = {name: [] for name in fractions}
    for group in (*sorted(members.values(), key=lambda patients: (len(patients), sorted(patients))), classless):
        placed = {name: len(group.intersection(part)) for name, part in parts.items()}
        left = {patient: home[patient] for patient in sorted(group.difference(*parts.values()))}
        owed = {name: max(quota - placed[name], 0) for name, quota in _quotas(len(group), fractions).items()}
        given = dict.fromkeys(owed, 0)
        shuffled = [str(patient) for patients in _by_site(left).values() for patient in rng.permutation(patients)]
        for number, patient in enumerate(shuffled, start=1):
            due = {name: number * owed[name] / sum(owed.values()) - given[name] for name in owed}
            chosen = max(due, key=lambda name: (due[name], -len(parts[name]) / fractions[name]))
            parts[chosen].append(patient)
            given[chosen] += 1
    return parts


def _quotas(patients: int, fractions: Mapping[str, float]) -> dict[str, int]:
    """How many of a class's patients each part with a fraction takes, at least one each; training the rest.

    Of a class with fewer patients than parts, training has the first, test the second.
    """
    wanted = [name for name in ("test", "validation") if fractions[name] > 0]
    quotas = {"train": patients}
    for name in wanted:
        quotas[name] = min(max(round(fractions[name] * patients), 1), quotas["train"] - 1) if quotas["train"] > 1 else 0
        quotas["train"] -= quotas[name]
    return quotas


def _by_site(home: Mapping[str, str]) -> dict[str, list[str]]:
    """Sorted patients of each site, sites in name order; a patient seen at two sites counts at one."""
    sites: dict[str, list[str]] = {}
    for patient, site in home.items():
        sites.setdefault(site, []).append(patient)
    return {site: sorted(sites[site]) for site in sorted(sites)}

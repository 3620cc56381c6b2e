"""Distributes the patients of one cohort over the sites of a simulated federation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ganseg_dist.data.cohort import UNKNOWN_SITE, Cohort, Split
from ganseg_dist.errors import ConfigError, DataError
from ganseg_dist.names import SiteName, is_name
from ganseg_dist.plural import counted

BY_HOSPITAL = "by-hospital"
FETS = "fets"
DIRICHLET = "dirichlet:"

LARGEST_ALPHA = 1e6
"""Shares are practically equal long before; far above it, sums overflow."""

LEAST_PATIENTS = 2
"""One to train with and one to validate with."""

FETS_SIZES = (511, 382, 47, 35, 35, 34, 33, 30, 22, 15, 14, 13, 12, 11, 9, 8, 8, 7, 6, 6, 5, 4, 4)
"""Patients of the 23 institutions of the FeTS 2022 challenge's training data, largest first: its natural partition,
partitioning_1.csv (Zenk et al., Towards fair decentralized benchmarking of healthcare AI algorithms with the Federated
Tumor Segmentation challenge, Nature Communications 2025, Table 3: 1251 patients)."""

Sites = dict[str, tuple[str, ...]]
"""Sorted patients by site name; every patient of the cohort belongs to exactly one site."""


@dataclass(frozen=True, slots=True)
class Participants:
    """The sites of a simulated federation that take part, and those that have too few patients for it."""

    sites: Sites
    split: Split
    """Training and validation patients of these sites; the test patients of all, so that every arm of a study is tested
    on the same ones."""
    left_out: Mapping[str, str]
    """Why, by site."""

    @property
    def validating(self) -> tuple[str, ...]:
        """The sites with patients to validate on."""
        return tuple(name for name, patients in self.sites.items() if self.split.of(patients).validation)

    @property
    def scores_rounds(self) -> bool:
        """Whether rounds are scored: of several sites one alone would choose which round is the best."""
        return len(self.validating) >= min(2, len(self.sites))

    def warnings(self) -> tuple[str, ...]:
        """A line for each site that is left out, and one where a single site could score the rounds."""
        lines = [f"{name}: takes no part: {reason}" for name, reason in self.left_out.items()]
        if self.validating and not self.scores_rounds:
            lines.append(
                f"no round is scored, and the last weights are kept: {self.validating[0]} alone has patients to "
                "validate on, and a mean needs two sites; raise data.validation_fraction, or draw other patients with "
                "another seed"
            )
        return tuple(lines)


def participants(sites: Sites, split: Split) -> Participants:
    """Leave out the sites with fewer than LEAST_PATIENTS patients or without one to train on.

    The result's split gives the same result again.

    Raises DataError where no site, or of several only one, is left.
    """
    left_out: dict[str, str] = {}
    for name, patients in sites.items():
        if len(patients) < LEAST_PATIENTS:
            left_out[name] = f"has {counted(len(patients), 'patient')}, and a site needs {LEAST_PATIENTS}"
        elif not split.of(patients).train:
            left_out[name] = f"has {counted(len(patients), 'patient')}, none of them to train on"
    kept = {name: patients for name, patients in sites.items() if name not in left_out}
    if len(kept) < min(2, len(sites)):
        name, reason = next(iter(left_out.items()))
        raise DataError(
            f"--sites: {name} {reason}, and {counted(len(kept), 'site')} of {len(sites)} can train; give fewer sites, "
            "or lower data.test_fraction and data.validation_fraction"
        )
    if not left_out:
        return Participants(kept, split, {})
    of_kept = split.of(patient for patients in kept.values() for patient in patients)
    return Participants(kept, Split(of_kept.train, of_kept.validation, split.test), left_out)


def partition(cohort: Cohort, sites: str | int, *, skew: str | None, seed: int, least: int = LEAST_PATIENTS) -> Sites:
    """Patients by site; all cases of a patient go to one site.

    Args:
        cohort: its cases name their hospital in `site`.
        sites: `by-hospital`, each hospital as it is, however small; or the number N of artificial sites, `site1` to
            `siteN`.
        skew: heterogeneity of artificial sites. None: sizes differ by at most one patient.
            `dirichlet:ALPHA`: each stratum's patients are shared out by a separate sample of Dirichlet(ALPHA) over the
            sites (Hsu et al., Measuring the effects of non-identical data distribution, 2019); the smaller ALPHA, the
            more heterogeneous. Strata are the patients' classes; if the layout names none, all patients are one
            stratum and only the sizes are skewed.
            `fets`: sizes as uneven as those of FeTS 2022's institutions, `site1` the largest (`_fets_shares`).
        seed: determines the result together with the patients' names; the order of cases does not matter.
        least: an artificial site with fewer patients gets more, sampled one by one from the then largest site.

    Raises ConfigError for an invalid `sites` or `skew`; DataError where the cohort has too few patients,
    fewer than two hospitals, patients of unknown hospitals, or a hospital whose name cannot be shown.
    """
    if sites == BY_HOSPITAL:
        if skew is not None:
            raise ConfigError(f"--skew {skew}: hospitals keep their patients; leave it out or give --sites a number")
        return _by_hospital(cohort)
    number = _number_of(sites)
    if number * least > len(cohort.patients):
        raise DataError(
            f"--sites {number}: {number} sites of at least {least} patients need {number * least}, and {cohort.root} "
            f"has {len(cohort.patients)}; give fewer sites or add patients"
        )
    rng = np.random.default_rng(seed)
    alpha = _alpha_of(skew)
    strata = [list(cohort.patients)] if alpha is None else _strata(cohort)
    assigned: list[list[str]] = [[] for _ in range(number)]
    for patients in strata:
        ends = np.cumsum(_apportioned(_shares(number, skew, alpha, rng), len(patients)))
        for site, part in zip(assigned, np.split(rng.permutation(patients), ends[:-1]), strict=True):
            site += part.tolist()
    _top_up(assigned, least, rng)
    return {f"site{index}": tuple(sorted(patients)) for index, patients in enumerate(assigned, start=1)}


def _by_hospital(cohort: Cohort) -> Sites:
    """The hospitals in name order; a patient of two hospitals counts at the first, as in `split_by_patient`."""
    hospitals: dict[str, set[str]] = {patient: set() for patient in cohort.patients}
    for case in cohort.cases:
        hospitals[case.patient] |= {case.site} - {UNKNOWN_SITE}
    hospital_of = {patient: min(names) for patient, names in hospitals.items() if names}
    remedy = "name every patient's in the site column of a CSV manifest, or give --sites a number"
    if len(hospital_of) < len(hospitals):
        unknown = len(hospitals) - len(hospital_of)
        raise DataError(
            f"--sites {BY_HOSPITAL}: the hospital of {unknown} of {len(hospitals)} patients of {cohort.root} is "
            f"unknown; {remedy}"
        )
    sites = sorted(set(hospital_of.values()))
    if len(sites) < 2:
        raise DataError(
            f"--sites {BY_HOSPITAL}: all patients of {cohort.root} are of 1 hospital ({', '.join(sites)}), and a "
            f"federation needs two; {remedy}"
        )
    validate_site_names(cohort)
    return {site: tuple(patient for patient in cohort.patients if hospital_of[patient] == site) for site in sites}


def validate_site_names(cohort: Cohort) -> None:
    """Raises DataError naming a hospital of the cohort whose name cannot be shown; reads no image."""
    for site in sorted({case.site for case in cohort.cases}):
        if not is_name(site, SiteName):
            raise DataError(
                f"{cohort.root}: site {site!r}: is no name that can be shown; take 1 to 60 characters without line "
                "breaks, control characters or blanks at its ends"
            )


def check_sites(sites: str | int, skew: str | None) -> None:
    """Raises ConfigError for an invalid `sites` or `skew`, before any image is read."""
    if sites != BY_HOSPITAL:
        _number_of(sites)
        _alpha_of(skew)


def _number_of(sites: str | int) -> int:
    try:
        number = int(sites)
    except ValueError:
        number = 0
    if number < 1:
        raise ConfigError(f"--sites {sites}: write {BY_HOSPITAL} or a number of sites, such as --sites 4")
    return number


def _alpha_of(skew: str | None) -> float | None:
    """The Dirichlet's parameter; None for another skew or none."""
    if skew is None or skew == FETS:
        return None
    if not skew.startswith(DIRICHLET):
        raise ConfigError(f"--skew {skew}: is not known; write {DIRICHLET}ALPHA, such as {DIRICHLET}0.5, or {FETS}")
    try:
        alpha = float(skew.removeprefix(DIRICHLET))
    except ValueError:
        alpha = 0.0
    if not 0 < alpha <= LARGEST_ALPHA:
        raise ConfigError(
            f"--skew {skew}: alpha must be a number above 0 and no more than {LARGEST_ALPHA:g}, "
            f"as in --skew {DIRICHLET}0.5"
        )
    return alpha


def _strata(cohort: Cohort) -> list[list[str]]:
    """Sorted patients of each stratum; a single stratum if classes do not distinguish patients."""
    kinds: dict[str, set[str]] = {patient: set() for patient in cohort.patients}
    for case in cohort.cases:
        if case.class_name is not None:
            kinds[case.patient].add(case.class_name)
    keys = {patient: tuple(sorted(kind)) for patient, kind in kinds.items()}
    return [[patient for patient in keys if keys[patient] == key] for key in sorted(set(keys.values()))]


def _shares(number: int, skew: str | None, alpha: float | None, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """(number,) each site's share of a stratum; they sum to 1."""
    if alpha is not None:
        return rng.dirichlet(np.full(number, alpha))
    return _fets_shares(number) if skew == FETS else np.full(number, 1 / number)


def _fets_shares(number: int) -> npt.NDArray[np.float64]:
    """(number,) shares of all patients, distributed like `FETS_SIZES`, largest first.

    The i-th share is that of the i-th N-th of the 23 institutions, in order of size: the increase of their Lorenz
    curve over it. With 23 sites these are the institutions' shares; with fewer, neighbours in size are pooled,
    and the sites are nearly as uneven as the institutions.
    """
    institutions = len(FETS_SIZES)
    lorenz = np.cumsum([0, *FETS_SIZES]) / sum(FETS_SIZES)
    return np.diff(np.interp(np.linspace(0, institutions, number + 1), np.arange(institutions + 1), lorenz))


def _apportioned(shares: npt.NDArray[np.float64], total: int) -> npt.NDArray[np.int64]:
    """Whole numbers that sum to `total`, each its share of it rounded up or down, by largest remainder (Hamilton)."""
    exact = shares * total
    counts = np.floor(exact).astype(np.int64)
    next_up = np.argsort(counts - exact, kind="stable")
    counts[next_up[: total - counts.sum()]] += 1
    return counts


def _top_up(assigned: Sequence[list[str]], least: int, rng: np.random.Generator) -> None:
    """Move random patients of the largest site to sites with fewer than `least`, until there are none."""
    for site in assigned:
        while len(site) < least:
            largest = max(assigned, key=len)
            site.append(largest.pop(int(rng.integers(len(largest)))))

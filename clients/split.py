"""A site's permanent split: once a patient is in a part, no federation moves it.

A server that chose seeds and fractions could train in one federation on the test patients of another, and single out
one patient by the difference of two means.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ganseg_dist.atomic import write_json
from ganseg_dist.data.cohort import Cohort, Split, split_by_patient
from ganseg_dist.digests import damage_as, read_sealed, sealed
from ganseg_dist.errors import ConfigError, RunError
from ganseg_dist.federation.policy import SitePolicy

FILE = "split.json"
SEED = 0
"""Of the first sampling. It is no secret: a server knows no patient."""


@dataclass(frozen=True, slots=True)
class SiteSplit:
    """The split of a site's folder."""

    folder: Path

    def of(self, cohort: Cohort, policy: SitePolicy, given: Mapping[str, tuple[str, ...]] | None) -> Split:
        """The part of every patient of the cohort: as stored, as given in site.toml, or sampled; and stored.

        A patient that was added later goes to the part that is furthest below its fraction.

        Raises ConfigError where site.toml moves a stored patient, RunError where FILE is damaged or was lost.
        """
        stored = self._stored()
        wanted = self._wanted(stored, cohort, policy, given)
        parts = {**stored, **_parts(wanted)}
        if parts != stored:
            write_json(self.folder / FILE, sealed({"parts": parts}))
        return wanted

    def preview(self, cohort: Cohort, policy: SitePolicy, given: Mapping[str, tuple[str, ...]] | None) -> Split:
        """As `of`, without storing it."""
        return self._wanted(self._stored(), cohort, policy, given)

    def _wanted(
        self,
        stored: Mapping[str, str],
        cohort: Cohort,
        policy: SitePolicy,
        given: Mapping[str, tuple[str, ...]] | None,
    ) -> Split:
        wanted = Split.from_dict(given) if given is not None else _extended(stored, cohort, policy)
        moved = stored.keys() & {p for p, part in _parts(wanted).items() if stored.get(p, part) != part}
        if moved:
            raise ConfigError(
                f"{self.folder / 'site.toml'}: split: {len(moved)} patients were in another part before; "
                f"restore the split that {FILE} holds"
            )
        return wanted

    def _stored(self) -> dict[str, str]:
        """The part of each patient; empty before the first federation."""
        file = self.folder / FILE
        if not file.exists():
            if any((self.folder / "runs").glob("*/joined.json")):
                raise RunError(f"{file}: is missing, and this site has joined federations; restore it from a backup")
            return {}
        with damage_as(RunError, "restore it from a backup"):
            stored: dict[str, str] = read_sealed(file)["parts"]
        return stored


def _extended(stored: Mapping[str, str], cohort: Cohort, policy: SitePolicy) -> Split:
    """The stored split and the cohort's other patients; a new split where nothing is stored."""
    if not stored:
        fractions = {"validation": policy.validation_fraction, "test": policy.test_fraction}
        return split_by_patient(cohort, **fractions, seed=SEED, settings="policy")
    fractions = {"validation": policy.validation_fraction, "test": policy.test_fraction}
    fractions["train"] = 1 - sum(fractions.values())
    named = {case.patient: case.part for case in cohort.cases if case.part == "test"}  # by the data set's authors
    known = {**named, **stored}
    parts = {part: [patient for patient in cohort.patients if known.get(patient) == part] for part in fractions}
    added = [patient for patient in cohort.patients if patient not in known]
    for patient in sorted(added, key=lambda patient: hashlib.sha256(patient.encode()).digest()):
        total = sum(map(len, parts.values())) + 1
        parts[max(fractions, key=lambda part: fractions[part] * total - len(parts[part]))].append(patient)
    return Split.from_dict({part: sorted(patients) for part, patients in parts.items()})


def _parts(split: Split) -> dict[str, Any]:
    """The part of each patient."""
    return {patient: part for part, patients in split.to_dict().items() for patient in patients}

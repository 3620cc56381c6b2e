"""data.json, a run's record of the cohort that it was trained on."""

from __future__ import annotations

import hashlib
import json

from ganseg_dist.data.checks.finding import Finding
from ganseg_dist.data.labels import LabelScheme
from ganseg_dist.data.readers import find_reader
from ganseg_dist.records import Record


class CaseRecord(Record):
    """A case that was used."""

    id: str
    patient: str
    site: str
    content: str
    """BLAKE2b of its files and of the reader's description of them (`data.store.content_hash`)."""


class DataRecord(Record):
    """Every case with its content, the masks' label scheme, and the excluded cases with their findings."""

    root: str
    layout: str
    phantom: bool
    synthetic: bool
    """Whether a generator made the images."""
    modalities: tuple[str, ...]
    regions: tuple[str, ...]
    channels: tuple[str, ...]
    """Modalities in the order of a file's channels, where the cases' files hold several; else none."""
    labels: LabelScheme
    """The label scheme of most masks."""
    otherwise_labelled: int
    """Masks with another scheme; in a federation, sites."""
    cases: tuple[CaseRecord, ...]
    """None where the data stay at the sites of a federation."""
    excluded: tuple[Finding, ...]
    healthy: DataRecord | None = None
    """The separate cohort of healthy subjects, where a stage was trained on one."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the cases' ids and contents: equal for equal data, wherever they lie and in any order."""
        contents = sorted((case.id, case.content) for case in self.cases)
        return hashlib.sha256(json.dumps(contents).encode()).hexdigest()

    @property
    def patients(self) -> frozenset[str]:
        """The patients of the cases."""
        return frozenset(case.patient for case in self.cases)

    @property
    def unknown_patients(self) -> int:
        """Number of cases that count as one patient each because their patient is unknown."""
        reader = find_reader(self.layout)
        return 0 if reader is None or reader.names_patients else sum(case.id == case.patient for case in self.cases)

"""What a check finds: one problem with its file and remedy, and a case's findings with what comparing cases needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ganseg_dist.data.cohort import Case, Cohort
from ganseg_dist.data.grid import Flaw

Severity = Literal["error", "warning"]

COHORT = ""
"""`Finding.case` of a finding about the whole cohort."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem of one case, or of the cohort."""

    case: str
    """`COHORT` where it concerns the whole cohort."""
    file: str
    check: str
    """A short stable name, such as `labels` or `duplicate-image`."""
    severity: Severity
    """An error spoils training or scores; a warning needs a look by the user."""
    problem: str
    remedy: str

    @classmethod
    def of_cohort(cls, cohort: Cohort, check: str, severity: Severity, problem: str, remedy: str) -> Finding:
        """A finding about the whole cohort."""
        return cls(COHORT, str(cohort.root), check, severity, problem, remedy)

    @classmethod
    def of_case(
        cls, case: Case, check: str, severity: Severity, problem: str, remedy: str, *, file: Path | None = None
    ) -> Finding:
        """A finding about a case's file; without a file, about the folder of its first image."""
        return cls(case.id, str(file or case.first_image.files[0].parent), check, severity, problem, remedy)

    @classmethod
    def of_flaw(cls, case: Case, file: Path, flaw: Flaw, severity: Severity = "error") -> Finding:
        """A finding about a file's flaw."""
        return cls(case.id, str(file), flaw.check, severity, flaw.problem, flaw.remedy)

    def line(self) -> str:
        """One line for a terminal or a log."""
        return f"{self.severity}: {self.message}"

    @property
    def message(self) -> str:
        """The line without its severity."""
        sentence = "; ".join(filter(None, (self.problem, self.remedy)))
        return ": ".join(filter(None, (self.case, self.file, sentence)))


@dataclass(frozen=True, slots=True)
class CaseReport:
    """Findings of one case, and what is needed to compare cases without reading them again."""

    findings: tuple[Finding, ...]
    digests: Mapping[str, str] = field(default_factory=dict)
    """Modality to a hash of its shape and voxels; constant volumes have none."""
    mask_digest: str | None = None
    """A hash of the mask's labels; None where it is empty or cannot be used."""
    skull_stripped: bool | None = None
    """None where no modality could be used, or the case is a picture."""
    coloured: bool | None = None
    """Whether a picture, stored in colour or grey, is coloured; None for other scans."""
    mask_colours: tuple[tuple[int, int, int], ...] = ()
    """Colours other than black of a mask in which every pixel that is not black counts."""
    hounsfield: tuple[str, ...] = ()
    """Modalities whose voxels are probably CT, in Hounsfield units."""
    mask_values: tuple[int, ...] = ()
    """The stored values in the mask that the case's labels define, without background."""

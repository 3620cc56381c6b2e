"""Checks before anything trains: every problem of a cohort, one finding a line, with its file and remedy."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ganseg_dist.data.alignment import better_moves
from ganseg_dist.data.cohort import Case, Cohort, Source
from ganseg_dist.data.foreground import Mask, foreground, is_skull_stripped
from ganseg_dist.data.scan import (
    Flaw,
    Grid,
    Volume,
    grid_flaw,
    label_flaw,
    load_volume,
    reason,
    reference_grid,
    translate_labels,
    voxel_flaw,
)
from ganseg_dist.errors import DataError

Severity = Literal["error", "warning"]

STRIPPERS = "HD-BET or SynthStrip"


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem of one case."""

    case: str
    file: str
    check: str
    """A short stable name, such as `labels` or `duplicate-image`."""
    severity: Severity
    """An error spoils what is learnt or measured; a warning asks for a look."""
    problem: str
    remedy: str

    def line(self) -> str:
        """For a terminal or a log."""
        return f"{self.severity}: {self.case}: {self.file}: {self.problem}; {self.remedy}"

    def to_dict(self) -> dict[str, str]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class CaseReport:
    """What reading one case told: enough to compare cases without reading them again."""

    findings: tuple[Finding, ...]
    digests: Mapping[str, str] = field(default_factory=dict)
    """Modality to a hash of its shape and voxels; constant volumes have none."""
    skull_stripped: bool | None = None
    """None where no modality could be used."""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, report: Mapping[str, Any]) -> CaseReport:
        """The inverse of `to_dict`."""
        findings = tuple(Finding(**finding) for finding in report["findings"])
        return cls(findings, dict(report["digests"]), report["skull_stripped"])


def expected_modalities(cohort: Cohort) -> tuple[str, ...]:
    """Modalities that at least half of the cases have, in the order they are met."""
    counts = Counter(modality for case in cohort.cases for modality in case.images)
    return tuple(modality for modality, count in counts.items() if 2 * count >= len(cohort.cases))


def check_case(case: Case, *, expected_modalities: Sequence[str] = ()) -> CaseReport:
    """Read one case and look at its files, grids, voxels and mask. Never raises on bad data.

    A modality or mask found broken is left out of the later checks, so that one defect gives one finding.
    """
    try:
        return _examined(case, expected_modalities)
    except MemoryError:
        raise  # the machine's, not the case's
    except Exception as error:  # voxels like no scan's must not stop the check of a hundred other cases
        problem = f"cannot be checked ({reason(error)})"
        remedy = "look at its images; leave the case out if they are no scans"
        return CaseReport((Finding(case.id, str(_folder(case)), "unchecked", "error", problem, remedy),))


def _examined(case: Case, expected_modalities: Sequence[str]) -> CaseReport:
    findings = list(_missing_modalities(case, expected_modalities))
    volumes: dict[str, Volume] = {}
    grids: dict[str, Grid] = {}
    for modality, source in case.images.items():
        try:
            volumes[modality], grids[modality] = load_volume(source)
        except DataError as error:
            findings.append(_unreadable(case, source, error))
    reference = reference_grid(list(grids.values())) if grids else None
    sound = {}
    for modality, volume in volumes.items():
        flaws = list(_volume_findings(case, modality, volume, grids[modality], reference))
        findings += flaws
        if not flaws:
            sound[modality] = volume
    digests = {modality: _digest(volume) for modality, volume in volumes.items() if not _is_constant(volume)}
    findings += _copied_modalities(case, digests)
    if not sound or reference is None:
        return CaseReport((*findings, *_mask_findings(case, reference, None)), digests)
    findings += _unregistered(case, sound)
    image = np.stack(list(sound.values()))
    body = foreground(image)
    findings += _mask_findings(case, reference, body)
    return CaseReport(tuple(findings), digests, is_skull_stripped(image, body, reference.spacing_mm))


def check_cohort(
    cohort: Cohort, reports: Sequence[CaseReport], *, needs_skull_stripping: bool = False
) -> tuple[Finding, ...]:
    """What only shows between cases. `reports` are those of `cohort.cases`, in their order."""
    return (
        *_duplicates(cohort, reports),
        *_missing_masks(cohort),
        *_unstripped(cohort, reports, needs_skull_stripping),
    )


def _missing_modalities(case: Case, expected: Sequence[str]) -> Iterator[Finding]:
    missing = [modality for modality in expected if modality not in case.images]
    if missing:
        yield Finding(
            case.id,
            str(_folder(case)),
            "missing-modality",
            "error",
            f"has no {', '.join(missing)}, which other cases have",
            "add the file or leave the case out",
        )


def _unreadable(case: Case, source: Source, error: DataError) -> Finding:
    """The loader's line already says `file: problem; remedy`, and which file of a stack it is."""
    message = str(error)
    file = next((str(file) for file in source.files if message.startswith(f"{file}: ")), str(source.files[0]))
    problem, _, remedy = message.removeprefix(f"{file}: ").rpartition("; ")
    return Finding(case.id, file, "unreadable", "error", problem, remedy)


def _flaw_finding(case: Case, file: str, flaw: Flaw) -> Finding:
    return Finding(case.id, file, flaw.check, "error", flaw.problem, flaw.remedy)


def _volume_findings(
    case: Case, modality: str, volume: Volume, grid: Grid, reference: Grid | None
) -> Iterator[Finding]:
    file = _file(case, modality)
    yield from _grid_findings(case, file, grid, reference)
    if flaw := voxel_flaw(modality, volume):
        yield _flaw_finding(case, file, flaw)
    elif _is_constant(volume):
        problem = f"{modality} is constant ({volume.flat[0]:g}), so it shows nothing"
        yield Finding(case.id, file, "constant", "error", problem, "export it again or leave the case out")


def _grid_findings(case: Case, file: str, grid: Grid, reference: Grid | None) -> Iterator[Finding]:
    if reference is not None and (flaw := grid_flaw(grid, reference)):
        yield _flaw_finding(case, file, flaw)


def _is_constant(volume: Volume) -> bool:
    return bool(volume.min() == volume.max())


def _digest(volume: Volume) -> str:
    content = hashlib.blake2b(str(volume.shape).encode(), digest_size=16)
    content.update(np.ascontiguousarray(volume).data)
    return content.hexdigest()


def _copied_modalities(case: Case, digests: Mapping[str, str]) -> Iterator[Finding]:
    seen: dict[str, str] = {}
    for modality, digest in digests.items():
        if digest in seen:
            problem = f"{modality} is a copy of {seen[digest]}"
            remedy = "replace it, or train without it if it was never acquired"
            yield Finding(case.id, _file(case, modality), "copied-modality", "warning", problem, remedy)
        seen.setdefault(digest, modality)


def _unregistered(case: Case, volumes: Mapping[str, Volume]) -> Iterator[Finding]:
    for modality, move in better_moves(volumes).items():
        problem = f"{modality} does not lie on the other modalities: {move} would bring it closer"
        remedy = "look at the case, and register its modalities to each other"
        yield Finding(case.id, _file(case, modality), "unregistered", "warning", problem, remedy)


def _mask_findings(case: Case, reference: Grid | None, body: Mask | None) -> Iterator[Finding]:
    if case.mask is None:
        return
    file = str(case.mask.files[0])
    try:
        raw, grid = load_volume(case.mask)
    except DataError as error:
        yield _unreadable(case, case.mask, error)
        return
    yield from _grid_findings(case, file, grid, reference)
    labels, strange = translate_labels(raw, case)
    if flaw := label_flaw(strange, case):
        yield _flaw_finding(case, file, flaw)
    elif not labels.any():
        problem = "the mask is empty"
        yield Finding(case.id, file, "empty-mask", "warning", problem, "check that this case has no lesion")
    elif body is not None and body.shape == labels.shape:
        outside = float((~body)[labels > 0].mean())
        if outside > 0.5:
            problem = f"{outside:.0%} of the mask lies outside the head or brain"
            yield Finding(case.id, file, "mask-outside", "error", problem, "check that the mask belongs to this case")


def _duplicates(cohort: Cohort, reports: Sequence[CaseReport]) -> Iterator[Finding]:
    """Each case against the earlier ones: the same id, else the same voxels in any modality."""
    ids: set[str] = set()
    owners: dict[str, Case] = {}
    for case, report in zip(cohort.cases, reports, strict=True):
        shared = next((m for m, digest in report.digests.items() if digest in owners), None)
        if case.id in ids:
            remedy = "list every case once, under its own id"
            yield Finding(case.id, str(_folder(case)), "duplicate-case", "error", "is listed twice", remedy)
        elif shared is not None:
            yield _duplicate_image(case, shared, owners[report.digests[shared]])
        ids.add(case.id)
        for digest in report.digests.values():
            owners.setdefault(digest, case)


def _duplicate_image(case: Case, modality: str, owner: Case) -> Finding:
    file = _file(case, modality)
    if case.patient == owner.patient:
        problem = f"{modality} is the same image as in case {owner.id} of the same patient"
        return Finding(case.id, file, "duplicate-case", "error", problem, "leave one of the two cases out")
    problem = f"{modality} is the same image as in case {owner.id} of patient {owner.patient}"
    remedy = "leave one out, or name one patient: it could stand in training and test at once"
    return Finding(case.id, file, "duplicate-image", "error", problem, remedy)


def _missing_masks(cohort: Cohort) -> Iterator[Finding]:
    """Where some cases have a mask, those without one are worth a word; where none has, that is intended."""
    if all(case.mask is None for case in cohort.cases):
        return
    for case in cohort.cases:
        if case.mask is None:
            problem = "has no mask, which other cases have"
            remedy = "add it, or leave the case out of supervised training"
            yield Finding(case.id, str(_folder(case)), "missing-mask", "warning", problem, remedy)


def _unstripped(cohort: Cohort, reports: Sequence[CaseReport], needed: bool) -> Iterator[Finding]:
    """Full heads, where brains are needed or where other cases are brains: a network tells such sites apart."""
    mixed = any(report.skull_stripped for report in reports)
    if not (needed or mixed):
        return
    for case, report in zip(cohort.cases, reports, strict=True):
        if report.skull_stripped is False:
            problem = "is not skull-stripped, which " + ("this recipe expects" if needed else "other cases are")
            remedy = f"strip it with {STRIPPERS}"
            yield Finding(case.id, str(_folder(case)), "not-skull-stripped", "warning", problem, remedy)


def _file(case: Case, modality: str) -> str:
    return str(case.images[modality].files[0])


def _folder(case: Case) -> Path:
    return next(iter(case.images.values())).files[0].parent

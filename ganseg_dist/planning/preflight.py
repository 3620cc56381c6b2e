"""Checks a cohort case by case before training, and leaves out what cannot be trained on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from ganseg_dist.atomic import write_json
from ganseg_dist.config import RunConfig
from ganseg_dist.data.checks.case_checks import check_case
from ganseg_dist.data.checks.cohort_checks import check_cohort, expected_modalities
from ganseg_dist.data.checks.finding import COHORT, CaseReport, Finding
from ganseg_dist.data.cohort import Case, Cohort
from ganseg_dist.data.store import content_hash
from ganseg_dist.digests import Damaged, read_sealed, sealed
from ganseg_dist.errors import DataError
from ganseg_dist.planning.mapper import Mapper, map_here
from ganseg_dist.records import validated
from ganseg_dist.runs import store_root

REPORT_FORMAT = 9


@dataclass(frozen=True, slots=True)
class Preflight:
    """A cohort's preflight: findings of single cases, then of cases together."""

    cohort: Cohort
    contents: Mapping[str, str]
    """Case to content hash."""
    findings: tuple[Finding, ...]
    empty_masks: frozenset[str] = frozenset()
    """Cases whose mask is empty, whether or not that is worth a finding."""

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Findings that would spoil training."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    @property
    def bad_cases(self) -> tuple[str, ...]:
        """Cases with an error."""
        return tuple(sorted({finding.case for finding in self.errors}))


def preflight(
    cohort: Cohort,
    config: RunConfig | None = None,
    *,
    mapper: Mapper = map_here,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> Preflight:
    """Check every case, for the config's training if given. A case whose content was checked before is not read again.

    Skull-stripped scans may be needed, and to a classifier a case without a lesion is an example of a class.
    """
    expected = expected_modalities(cohort)
    reports_folder = store_root() / "reports"

    def examine(case: Case) -> tuple[str, CaseReport]:
        return _examine(case, expected, reports_folder)

    examined: dict[int, tuple[str, CaseReport]] = {}
    for index, examination in mapper(examine, list(cohort.cases)):
        examined[index] = examination
        advance(len(examined), len(cohort.cases))
    in_order = [examined[index] for index in range(len(cohort.cases))]
    contents = {case.id: content for case, (content, _) in zip(cohort.cases, in_order, strict=True)}
    reports = [report for _, report in in_order]
    findings = [finding for report in reports for finding in report.findings]
    empty = frozenset(finding.case for finding in findings if finding.check == "empty-mask")
    if config is not None and config.system.task == "classification":
        findings = [finding for finding in findings if finding.check != "empty-mask"]
    if cohort.synthetic:  # nothing was scanned that could be registered
        findings = [finding for finding in findings if finding.check != "unregistered"]
    needs_skull_stripping = config is not None and config.data.skull_stripped
    findings += check_cohort(cohort, reports, needs_skull_stripping=needs_skull_stripping)
    return Preflight(cohort, contents, tuple(findings), empty)


def usable_cohort(found: Preflight, *, exclude_bad: bool) -> Cohort:
    """The cohort to train on.

    Raises DataError with the first finding unless bad cases may be excluded, and with one that is of no single case
    even then.
    """
    if not found.errors:
        return found.cohort
    if of_all := [finding for finding in found.errors if finding.case == COHORT]:
        raise DataError(of_all[0].message)
    if not exclude_bad:
        more = f" (and {len(found.errors) - 1} more: ganseg check {found.cohort.root})" if len(found.errors) > 1 else ""
        raise DataError(
            f"{found.errors[0].message}{more}; take it out, or give ganseg train --exclude-bad to continue without it"
        )
    left = found.cohort.without(found.bad_cases)
    if not left.cases:
        raise DataError(f"{found.cohort.root}: no case is left after excluding the bad ones; see ganseg check")
    return left


def labelled(cohort: Cohort, config: RunConfig) -> Cohort:
    """The cohort less unlabelled cases: without a mask, and for a classifier without a class too.

    One in which no case is labelled stays as it is: `resolve` raises the error.
    """
    named = {case.id for case in cohort.cases if case.class_name is not None}
    useless = [case for case in cohort.unlabelled if config.system.task == "segmentation" or case not in named]
    return cohort.without(useless) if len(useless) < len(cohort.cases) else cohort


def _examine(case: Case, expected: tuple[str, ...], reports_folder: Path) -> tuple[str, CaseReport]:
    """Hash of the case's files, empty when they cannot be read, and its report."""
    try:
        content = content_hash(case)
    except OSError:  # check_case reports which file and why
        return "", check_case(case, expected_modalities=expected)
    files = [str(file) for source in case.images.values() for file in source.files]
    key = hashlib.blake2b(json.dumps([REPORT_FORMAT, content, expected, files]).encode(), digest_size=12).hexdigest()
    cached = reports_folder / f"{key}.json"
    with suppress(Damaged):  # or missing: the case is checked again
        return content, validated(CaseReport, read_sealed(cached), cached)
    report = check_case(case, expected_modalities=expected)
    write_json(cached, sealed(asdict(report)))
    return content, report

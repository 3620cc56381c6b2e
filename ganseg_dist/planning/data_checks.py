"""Whether there are training examples: what `ganseg check` reports, and training warns of or rejects.

A stage in which no example counts would train on nothing and finish. Most of it is known from the masks and classes on
disk; resampling can remove lesions, so the prepared slices are checked once more.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ganseg_dist.config import RunConfig
from ganseg_dist.data.checks.finding import COHORT, Finding
from ganseg_dist.data.cohort import Case, Cohort, Split
from ganseg_dist.data.listing import is_nifti
from ganseg_dist.data.slices import LESION_CLASSES, SliceSet
from ganseg_dist.engine.trainer import StageData
from ganseg_dist.errors import DataError, GansegError
from ganseg_dist.planning.preflight import Preflight
from ganseg_dist.planning.resolve import order_message
from ganseg_dist.systems import outline_system
from ganseg_dist.systems.base import Stage

CHECK_MASKS = "check the masks, and what their values mean"

UNSCORABLE = "unscorable"
"""The check for validation patients by whom no epoch can be scored."""

MOST_ALIKE = 3
"""Findings of one kind that training names; for the others it names the command that lists all."""


@dataclass(frozen=True, slots=True)
class Contents:
    """The contents of one part's images."""

    cases: int
    lesion: bool
    tumour_free: bool
    """Whether a slice shows no lesion."""
    classes: tuple[str, ...]
    """The run's classes that have images."""

    @classmethod
    def by_cases(cls, cases: Sequence[Case], classes: Sequence[str], empty_masks: frozenset[str]) -> Contents:
        """The contents as known before slices are prepared: a scan with a lesion has slices without one."""
        masked = [case for case in cases if case.mask is not None]
        lesion = any(case.id not in empty_masks for case in masked)
        tumour_free = any(case.id in empty_masks or not _is_one_slice(case) for case in masked)
        named = {case.class_name for case in cases}
        if set(classes) == set(LESION_CLASSES):
            named |= {name for name, there in zip(LESION_CLASSES, (tumour_free, lesion), strict=True) if there}
        return cls(len(cases), lesion, tumour_free, tuple(name for name in classes if name in named))

    @classmethod
    def by_slices(cls, slices: SliceSet, classes: Sequence[str]) -> Contents:
        """The contents of prepared slices."""
        there = tuple(name for index, name in enumerate(classes) if (slices.label == index).any())
        return cls(len(slices.cases), bool(slices.has_lesion.any()), bool((~slices.has_lesion).any()), there)


def mask_findings(found: Preflight, cohort: Cohort) -> Iterator[Finding]:
    """An error where there are masks and all are empty."""
    masked = [case for case in cohort.cases if case.mask is not None]
    if masked and all(case.id in found.empty_masks for case in masked):
        problem = f"all {len(masked)} masks are empty: there is nothing to segment"
        yield Finding.of_cohort(cohort, "empty-masks", "error", problem, CHECK_MASKS)


def split_findings(found: Preflight, cohort: Cohort, config: RunConfig, split: Split) -> tuple[Finding, ...]:
    """Findings on the examples of the training and validation patients, under a resolved config."""
    classes = config.data.classes or ()
    train, validation = (
        Contents.by_cases(cohort.of_patients(patients), classes, found.empty_masks)
        for patients in (split.train, split.validation)
    )
    return tuple(_findings(config, cohort, train, validation))


def slice_findings(config: RunConfig, data: Mapping[str, StageData], cohort: Cohort) -> tuple[Finding, ...]:
    """The same findings on the prepared slices by source, as `Prepared.open` gives them."""
    classes, own = config.data.classes or (), data["cohort"]
    train, validation = (Contents.by_slices(slices, classes) for slices in (own.train, own.validation))
    return tuple(_findings(config, cohort, train, validation))


def _findings(config: RunConfig, cohort: Cohort, train: Contents, validation: Contents) -> Iterator[Finding]:
    """Tumour-free slices are required where a stage trains on them alone (engine/loader.py)."""
    if config.system.task == "classification":
        yield from _one_class(config, cohort, train)
        return
    if not train.lesion:
        problem = f"none of the {train.cases} training cases shows a lesion"
        yield Finding.of_cohort(cohort, "no-lesion", "error", problem, f"{CHECK_MASKS}, or add patients")
    if validation.cases and not validation.lesion:
        problem = f"none of the {validation.cases} validation cases shows a lesion, so that no epoch can be scored"
        remedy = "raise data.validation_fraction, or draw other patients with another seed"
        yield Finding.of_cohort(cohort, UNSCORABLE, "warning", problem, remedy)
    if not train.tumour_free and any(map(_learns_from_tumour_free, outline_system(config).stages)):
        problem = (
            f"no slice of the {train.cases} training cases is without a lesion and has enough foreground, and the GAN "
            "trains on such"
        )
        remedy = "add images without a lesion, give healthy subjects by --healthy DATA, or --set system.gan=false"
        yield Finding.of_cohort(cohort, "no-tumour-free", "error", problem, remedy)


def _one_class(config: RunConfig, cohort: Cohort, train: Contents) -> Iterator[Finding]:
    if len(train.classes) > 1:
        return
    known = f"all of one class, {train.classes[0]}" if train.classes else "of no known class"
    others = ", ".join(name for name in config.data.classes or () if name not in train.classes)
    problem = f"the training patients' images are {known}"
    yield Finding.of_cohort(cohort, "one-training-class", "error", problem, f"add patients with images of {others}")


def _learns_from_tumour_free(stage: Stage) -> bool:
    return stage.examples == "tumour_free" and stage.source == "cohort"


def _is_one_slice(case: Case) -> bool:
    files = {file for source in case.images.values() for file in source.files}
    return len(files) == 1 and not is_nifti(next(iter(files)))


def order_finding(cohort: Cohort, request: RunConfig, resolved: RunConfig) -> Iterator[Finding]:
    """A warning where neither the user nor the names of two classes decide which is positive."""
    order = order_message(request, resolved)
    if order is not None:
        problem, _, remedy = order.partition("; ")
        yield Finding.of_cohort(cohort, "class-order", "warning", problem, remedy)


def finding_of(error: GansegError) -> Finding:
    """An error that ends training before it begins, as `ganseg check` reports it."""
    file, _, sentence = str(error).partition(": ")
    problem, _, remedy = sentence.rpartition("; ")
    return Finding(COHORT, file, "training", "error", problem or remedy, remedy if problem else "")


def raise_first(findings: Iterable[Finding]) -> None:
    """Raises DataError with the first error."""
    for finding in findings:
        if finding.severity == "error":
            raise DataError(finding.message)


def warn_of(findings: Iterable[Finding], warn: Callable[[str], object], command: str) -> None:
    """One line a finding; of one kind the first few, and how many more there are.

    Args:
        findings: those with which training continues: a case with an error is left out.
        warn: called with each line, without the word warning.
        command: lists all of them.
    """
    kinds: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        kinds.setdefault((finding.severity, finding.check), []).append(finding)
    for (severity, check), alike in kinds.items():
        named = alike if len(alike) <= MOST_ALIKE + 1 else alike[:MOST_ALIKE]
        for finding in named:
            warn(f"{finding.message} (left out)" if severity == "error" else finding.message)
        if len(named) < len(alike):
            warn(f"and {len(alike) - len(named)} more of {check}: {command}")


def check_command(data: Path, recipe: str, layout: str | None = None, labels: str | None = None) -> str:
    """The command that lists every finding on a cohort."""
    options = {"--recipe": recipe, "--layout": layout, "--labels": labels}
    args = [arg for option, value in options.items() if value is not None for arg in (option, value)]
    return shlex.join(["ganseg", "check", str(data), *args])

"""First step of a training: the checked cohort and the resolved config, before any image is prepared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from ganseg_dist.config import RunConfig
from ganseg_dist.data.checks.finding import COHORT, Finding
from ganseg_dist.data.cohort import Cohort, Split, split_as_configured
from ganseg_dist.data.readers import read_cohort
from ganseg_dist.data.record import DataRecord
from ganseg_dist.engine.patient_privacy import validate_patient_privacy
from ganseg_dist.engine.world import World
from ganseg_dist.errors import GansegError
from ganseg_dist.planning.data_checks import (
    check_command,
    finding_of,
    mask_findings,
    order_finding,
    raise_first,
    split_findings,
    warn_of,
)
from ganseg_dist.planning.mapper import Bar, Mapper, map_here, no_bar
from ganseg_dist.planning.preflight import Preflight, labelled, preflight, usable_cohort
from ganseg_dist.planning.request import TrainingRequest
from ganseg_dist.planning.resolve import check_no_overlap, resolve
from ganseg_dist.planning.run_folder import data_record
from ganseg_dist.systems import outline_system
from ganseg_dist.systems.base import Monitor, monitors_of


@dataclass(frozen=True, slots=True)
class Plan:
    """The training to be done: everything known before an image is prepared."""

    config: RunConfig
    found: Preflight
    cohort: Cohort
    healthy: tuple[Preflight, Cohort] | None
    monitors: Mapping[str, Monitor]
    """The score that chooses each stage's epoch, by stage."""
    class_order: tuple[Finding, ...]
    """A warning where neither user nor names decide which of two classes is positive."""

    def split_findings(self, split: Split) -> tuple[Finding, ...]:
        """Findings on the split's training and validation examples, as known before slices are prepared."""
        return split_findings(self.found, self.cohort, self.config, split)

    @property
    def data_record(self) -> DataRecord:
        """The content of data.json: everything the run is trained on."""
        healthy = None if self.healthy is None else data_record(self.healthy[1], self.healthy[0])
        return data_record(self.cohort, self.found, healthy)


def plan_training(request: TrainingRequest, *, mapper: Mapper = map_here, bar: Bar = no_bar) -> Plan:
    """Read the cohort, check it, resolve the config. Raises GansegError on anything that would spoil training."""
    found = _checked(read_cohort(request.data, request.layout, request.labels), request.config, mapper, bar)
    cohort = _trainable(found, request.config, exclude_bad=request.exclude_bad)
    healthy = None
    if request.healthy is not None:
        healthy_found = _checked(read_cohort(request.healthy), request.config, mapper, bar)
        healthy = (healthy_found, usable_cohort(healthy_found, exclude_bad=request.exclude_bad))
        check_no_overlap(cohort, healthy[1])
    return _planned(found, cohort, request.config, healthy)


def plan_findings(found: Preflight, config: RunConfig) -> tuple[Finding, ...]:
    """What training of this config on a checked cohort would warn of or reject, beside what the checks found.

    Cases with an error are left out; there are no findings where none is left.
    """
    if any(finding.case == COHORT for finding in found.errors) or len(found.bad_cases) == len(found.cohort.cases):
        return ()
    try:
        plan = _planned(found, _trainable(found, config, exclude_bad=True), config)
        split = split_as_configured(plan.cohort, plan.config)
    except GansegError as error:
        return (finding_of(error),)
    return (*plan.class_order, *plan.split_findings(split))


def _trainable(found: Preflight, config: RunConfig, *, exclude_bad: bool) -> Cohort:
    cohort = labelled(usable_cohort(found, exclude_bad=exclude_bad), config)
    if config.system.task == "segmentation":
        raise_first(mask_findings(found, cohort))
    return cohort


def _planned(
    found: Preflight, cohort: Cohort, request: RunConfig, healthy: tuple[Preflight, Cohort] | None = None
) -> Plan:
    config = resolve(request, cohort, healthy[1] if healthy else None)
    system = outline_system(config)  # rejects what its phases cannot do, before hours of preparation
    if config.train.privacy.on:
        validate_patient_privacy(config, system, World())
    return Plan(config, found, cohort, healthy, monitors_of(system), tuple(order_finding(cohort, request, config)))


def _checked(cohort: Cohort, config: RunConfig, mapper: Mapper, bar: Bar) -> Preflight:
    with bar(f"Checking {cohort.root.name}") as advance:
        return preflight(cohort, config, mapper=mapper, advance=advance)


def check_plan(
    plan: Plan, request: TrainingRequest, splits: Mapping[str, Split], warn: Callable[[str], object]
) -> tuple[Finding, ...]:
    """Warn of what `ganseg check` warns of, before anything is prepared; what was found of the splits.

    Args:
        splits: by the trial that trains on it; a finding on one of several names it.

    Raises DataError where a split leaves no training examples.
    """
    trials: dict[Split, list[str]] = {}
    for name, split in splits.items():
        trials.setdefault(split, []).append(name)
    findings = tuple(
        replace(finding, case=names[0] if len(trials) > 1 else COHORT)
        for split, names in trials.items()
        for finding in plan.split_findings(split)
    )
    raise_first(findings)
    warn_of_cohorts(plan, request, warn)
    warn_of(findings, warn, check_command(request.data, plan.config.recipe, request.layout, request.labels))
    return findings


def warn_of_cohorts(plan: Plan, request: TrainingRequest, warn: Callable[[str], object]) -> None:
    """Warn of the findings that do not depend on the split."""
    recipe = plan.config.recipe
    of_cohort = (*plan.found.findings, *plan.class_order)
    warn_of(of_cohort, warn, check_command(request.data, recipe, request.layout, request.labels))
    if plan.healthy is not None and request.healthy is not None:
        warn_of(plan.healthy[0].findings, warn, check_command(request.healthy, recipe))

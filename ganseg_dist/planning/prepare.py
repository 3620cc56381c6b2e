"""Second step of a training: the slices of training and validation patients, in the prepared store."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ganseg_dist.config import DataConfig, RunConfig, override
from ganseg_dist.data.checks.finding import Finding
from ganseg_dist.data.cohort import Case, Cohort, Split, split_by_patient
from ganseg_dist.data.slices import LESION_CLASSES, SliceSet
from ganseg_dist.data.store import content_hash, prepare_case
from ganseg_dist.engine.trainer import StageData
from ganseg_dist.errors import DataError, GansegError
from ganseg_dist.planning.data_checks import raise_first, slice_findings
from ganseg_dist.planning.mapper import Bar, Mapper, map_here, no_bar
from ganseg_dist.planning.plan import Plan, check_plan
from ganseg_dist.planning.preflight import Preflight
from ganseg_dist.planning.request import TrainingRequest
from ganseg_dist.runs import store_root

logger = logging.getLogger(__name__)


def prepare_cohort(
    found: Preflight,
    cases: Iterable[Case],
    config: DataConfig,
    *,
    mapper: Mapper = map_here,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Path]:
    """Each case's folder in the store; whole cases in it are not prepared again."""
    wanted = list(cases)
    store = store_root()
    contents = found.contents

    def prepare(case: Case) -> tuple[Path | str, list[str]]:
        warnings: list[str] = []  # logs of another node would not appear here
        try:
            return prepare_case(store, case, config, contents[case.id], warn=warnings.append), warnings
        except GansegError as error:
            return str(error), warnings
        except OSError as error:
            return f"{store}: cannot be written ({error.strerror or error}); free space or set GANSEG_STORE", warnings

    folders: dict[str, Path] = {}
    for index, (outcome, warnings) in mapper(prepare, wanted):
        for warning in warnings:
            logger.warning("%s", warning)
        if isinstance(outcome, str):
            raise DataError(outcome)
        folders[wanted[index].id] = outcome
        advance(len(folders), len(wanted))
    return folders


def prepared_slices(
    cases: Sequence[Case], config: RunConfig, advance: Callable[[int, int], None] = lambda done, total: None
) -> SliceSet:
    """The cases' slices as a run with this (resolved) config sees them, from the store where they are prepared already.

    Raises DataError when a case cannot be read.
    """
    data, folders = config.data, []
    for case in cases:
        folders.append(prepare_case(store_root(), case, data, content_hash(case)))
        advance(len(folders), len(cases))
    return SliceSet.open(folders, data.channels, data.regions or (), data.classes or LESION_CLASSES)


@dataclass(frozen=True, slots=True)
class Prepared:
    """Folders of prepared cases by part, for each source of a stage's examples. JSON, so it can be sent anywhere."""

    cohort: dict[str, list[str]]
    healthy: dict[str, list[str]] | None = None

    def open(self, config: RunConfig) -> dict[str, StageData]:
        """The slices by source."""
        modalities = config.data.channels
        regions = config.data.regions or ()
        classes = config.data.classes or LESION_CLASSES
        data = {"cohort": _stage_data(self.cohort, modalities, regions, classes)}
        if self.healthy is not None:
            data["healthy"] = _stage_data(self.healthy, config.system.gan_modalities or modalities, (), classes)
        return data


def _stage_data(
    parts: dict[str, list[str]], modalities: tuple[str, ...], regions: tuple[str, ...], classes: tuple[str, ...]
) -> StageData:
    opened = {
        part: SliceSet.open((Path(folder) for folder in folders), modalities, regions, classes)
        for part, folders in parts.items()
    }
    return StageData(opened["train"], opened["validation"])


def by_part(cohort: Cohort, split: Split, folders: dict[str, Path]) -> dict[str, list[str]]:
    """The folders of the training and validation patients."""
    return {
        part: [str(folders[case.id]) for case in cohort.of_patients(patients)]
        for part, patients in (("train", split.train), ("validation", split.validation))
    }


def prepare_training(
    plan: Plan,
    request: TrainingRequest,
    split: Split,
    *,
    warn: Callable[[str], object],
    mapper: Mapper = map_here,
    bar: Bar = no_bar,
) -> Prepared:
    """The slices of training and validation patients, after warnings of all that would weaken the training.

    Raises DataError where there are no training examples.
    """
    warned = check_plan(plan, request, {"": split}, warn)
    prepared = prepare_plan(plan, split, mapper, bar)
    check_slices(plan, prepared, warned, warn)
    return prepared


def prepare_plan(plan: Plan, split: Split, mapper: Mapper = map_here, bar: Bar = no_bar) -> Prepared:
    """The slices of training and validation patients, from the store where they are prepared already."""
    used = plan.cohort.of_patients((*split.train, *split.validation))
    with bar("Preparing slices") as advance:
        folders = prepare_cohort(plan.found, used, plan.config.data, mapper=mapper, advance=advance)
    cohort_parts = by_part(plan.cohort, split, folders)
    if plan.healthy is None:
        return Prepared(cohort_parts)
    found, cohort = plan.healthy
    data = override(plan.config, {"data.modalities": list(plan.config.system.gan_modalities or ())}).data
    with bar("Preparing healthy slices") as advance:
        folders = prepare_cohort(found, cohort.cases, data, mapper=mapper, advance=advance)
    return Prepared(cohort_parts, by_part(cohort, healthy_split(cohort, plan.config), folders))


def healthy_split(cohort: Cohort, config: RunConfig) -> Split:
    """A healthy cohort is split for early stopping alone; it has no test patients."""
    validation = max(config.data.validation_fraction, 0.1)
    return split_by_patient(cohort, validation=validation, test=0.0, seed=config.seed)


def check_slices(
    plan: Plan, prepared: Prepared, warned: Sequence[Finding], warn: Callable[[str], object]
) -> tuple[Finding, ...]:
    """Warn of findings that only the prepared slices show; returns all. Raises DataError as `check_plan` does."""
    findings = slice_findings(plan.config, prepared.open(plan.config), plan.cohort)
    raise_first(findings)
    for finding in findings:
        if finding not in warned:
            warn(finding.message)
    return findings

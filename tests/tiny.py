"""From a cohort on disk to what training reads, without a run's folder, a cluster or a tracker."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ganseg_dist.config import RunConfig, override
from ganseg_dist.data.cohort import Cohort, split_by_patient
from ganseg_dist.data.store import content_hash, prepare_case
from ganseg_dist.planning.prepare import Prepared, by_part
from ganseg_dist.planning.resolve import resolve


def resolved(config: RunConfig, cohort: Cohort, changes: Mapping[str, Any] | None = None) -> RunConfig:
    """The config with these changes and what the cohort decides."""
    return resolve(override(config, changes or {}), cohort)


def prepare(cohort: Cohort, config: RunConfig, store: Path) -> Prepared:
    """Training and validation patients in the store."""
    data = config.data
    split = split_by_patient(cohort, validation=data.validation_fraction, test=data.test_fraction, seed=config.seed)
    cases = cohort.of_patients((*split.train, *split.validation))
    folders = {case.id: prepare_case(store, case, data, content_hash(case)) for case in cases}
    return Prepared(by_part(cohort, split, folders))

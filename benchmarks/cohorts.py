"""Image cohorts for benchmarks that train: a cached phantom, or real images where they are available."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ganseg_dist.config import RunConfig
from ganseg_dist.data.cohort import Cohort, Split, split_by_patient
from ganseg_dist.data.phantom.folder import make_phantom
from ganseg_dist.data.readers import read_cohort
from ganseg_dist.data.store import content_hash, prepare_case
from ganseg_dist.engine.trainer import StageData
from ganseg_dist.errors import DataError
from ganseg_dist.planning.prepare import Prepared, by_part
from ganseg_dist.planning.resolve import resolve

CACHE = Path(tempfile.gettempdir()) / "ganseg-benchmarks"


@dataclass(frozen=True, slots=True)
class Task:
    """A config with its cohort, split and prepared data."""

    config: RunConfig
    """Resolved."""
    cohort: Cohort
    split: Split
    data: StageData


def phantom_cohort(*, patients: int, spacing_mm: float) -> Cohort:
    """A phantom, cached in the system's temporary folder."""
    folder = CACHE / f"phantom-{patients}-{spacing_mm:g}mm"
    folder.parent.mkdir(parents=True, exist_ok=True)
    make_phantom(folder, patients=patients, sites=3, seed=1, healthy=0, spacing_mm=spacing_mm)
    return read_cohort(folder)


def lgg_cohort() -> Cohort:
    """The Kaggle LGG images in $GANSEG_DATA, or in ../shared/data beside the repository."""
    folder = Path(os.environ.get("GANSEG_DATA") or Path(__file__).parents[2] / "shared" / "data") / "lgg"
    if not folder.is_dir():
        raise DataError(f"{folder}: holds no images; set GANSEG_DATA to the folder that has lgg in it")
    return read_cohort(folder)


def task(cohort: Cohort, config: RunConfig) -> Task:
    """Resolve the config, split by patient as a run would, and prepare the slices in the cache."""
    resolved = resolve(config, cohort)
    data = resolved.data
    split = split_by_patient(cohort, validation=data.validation_fraction, test=data.test_fraction, seed=resolved.seed)
    return Task(resolved, cohort, split, prepared_data(cohort, split, resolved, CACHE / "store"))


def prepared_data(cohort: Cohort, split: Split, config: RunConfig, store: Path) -> StageData:
    """Training and validation slices; a case that the store holds is not prepared again."""
    cases = cohort.of_patients((*split.train, *split.validation))
    folders = {case.id: prepare_case(store, case, config.data, content_hash(case)) for case in cases}
    return Prepared(by_part(cohort, split, folders)).open(config)["cohort"]

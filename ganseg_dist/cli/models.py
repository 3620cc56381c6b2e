"""How commands find a model: a run's name, its folder, its MLflow id, or an exported folder."""

from __future__ import annotations

from pathlib import Path

from ganseg_dist.data.cohort import Case, Cohort
from ganseg_dist.errors import DataError, RunError
from ganseg_dist.inference.model_folder import is_model_folder
from ganseg_dist.runs import Run, find_run


def model_folder(reference: str) -> Path:
    """The model folder that a reference names. Raises RunError when there is none."""
    if is_model_folder(Path(reference)):
        return Path(reference)
    return finished_run(reference).model


def finished_run(reference: str) -> Run:
    """A run that has a model. Raises RunError when it has not finished."""
    run = find_run(reference)
    if not is_model_folder(run.model):
        raise RunError(f"{run.name}: has no model yet; finish it with: ganseg train --resume {run.name}")
    return run


def cases_of_part(run: Run, cohort: Cohort, part: str) -> tuple[Case, ...]:
    """The cohort's cases of one part of the run's split, with a mask.

    Raises DataError when there are none: a cohort of strangers is scored with part "all".
    """
    if part == "all":
        cases = cohort.cases
        learnt_from = set(run.split().train) & set(cohort.patients)
        if learnt_from:
            raise DataError(f"--part all: {len(learnt_from)} of these patients trained {run.name}; use --part test")
    else:
        cases = cohort.of_patients(getattr(run.split(), part))
    masked = tuple(case for case in cases if case.mask is not None)
    if not masked:
        raise DataError(
            f"{cohort.root}: holds no masked case of {run.name}'s {part} patients; "
            "give the data it was trained on, or --part all for another cohort"
        )
    return masked

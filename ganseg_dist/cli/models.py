"""Find a model by a run's name, its folder, its MLflow id, an experiment of folds, or an exported folder."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from ganseg_dist.cli import show
from ganseg_dist.cli.remote_runs import fetch_runs
from ganseg_dist.config import RunConfig
from ganseg_dist.data.cohort import Case, Cohort
from ganseg_dist.data.readers import read_cohort
from ganseg_dist.data.scan import Scan, load_scan
from ganseg_dist.data.slices import SliceSet
from ganseg_dist.data.store import content_hash
from ganseg_dist.errors import ConfigError, DataError, RunError
from ganseg_dist.inference.ensemble import is_ensemble_folder, member_folders
from ganseg_dist.inference.model_folder import is_model_folder
from ganseg_dist.metrics.threshold import few_patients_warning
from ganseg_dist.planning.prepare import prepared_slices
from ganseg_dist.runs import Run, experiment_command, find_run
from ganseg_dist.studies.experiments.splits import fold_models
from ganseg_dist.studies.study import find_study


def fetch_models(reference: str) -> None:
    """Fetch what `model_folders` needs of a run, or of an experiment and its folds, from GANSEG_RUNS_URI."""
    if is_model_folder(Path(reference)) or is_ensemble_folder(Path(reference)):
        return
    fetch_runs(reference)
    experiment = find_study(reference, "experiment")
    if experiment is not None and experiment.kind == "folds":
        fetch_runs(*(experiment.trial_run(trial).name for trial in experiment.trial_names))


def model_folders(reference: str) -> dict[str, Path]:
    """The model folders that a reference names, by name: a run's one, or those of folds that predict together.

    Raises RunError when there is none, or a fold is missing.
    """
    folder = Path(reference)
    if is_model_folder(folder):
        return {folder.name: folder}
    if is_ensemble_folder(folder):
        return member_folders(folder)
    experiment = find_study(reference, "experiment")
    if experiment is not None:
        return fold_models(experiment)
    run = finished_run(reference)
    return {run.name: run.model}


def finished_run(reference: str) -> Run:
    """A run that has a model. Raises RunError when it has not finished, or is an experiment of many."""
    check_not_experiment(reference)
    run = find_run(reference)
    if not is_model_folder(run.model):
        remedy = (
            "train again under another --run-name" if run.finished else f"finish it: ganseg train --resume {run.name}"
        )
        raise RunError(f"{run.name}: has no model in {run.model}; {remedy}")
    return run


def segmenting_run(reference: str) -> Run:
    """A finished run whose model has thresholds to choose. Raises ConfigError for a classifier's."""
    run = finished_run(reference)
    config = run.config()
    if config.system.task == "segmentation":
        return run
    request = run.description().request
    command = f"ganseg evaluate {run.name} --data {'DATA' if request is None else shlex.quote(request.data)}"
    if len(config.data.classes or ()) == 2:
        remedy = f"{command} chooses its operating point on validation patients"
    else:
        remedy = f"the likeliest of several classes is reported: {command}"
    raise ConfigError(f"{run.name}: classifies, and a classifier has no threshold to choose; {remedy}")


def stated_labels(run: Run) -> str | None:
    """The label scheme that the run was trained with, by which its cohort's masks are read; None if none was given."""
    request = run.description().request
    return None if request is None else request.labels


def validation_cases(
    run: Run, data: Path | None, layout: str | None = None, labels: str | None = None
) -> tuple[Case, ...]:
    """The cases of the run's validation patients, from its cohort, which may have moved from where the run recorded it.

    Raises ConfigError when the run recorded none, and DataError as `cases_of_part` does.
    """
    request = run.description().request
    if request is not None:
        data, layout, labels = data or Path(request.data), layout or request.layout, labels or request.labels
    if data is None:
        raise ConfigError(f"{run.name}: does not record where its data was; give --data DATA")
    cohort = read_cohort(data, layout, labels)
    return cases_of_part(run, cohort, "validation")


def check_not_experiment(reference: str) -> None:
    """Raises RunError where one run is needed and an experiment of many is given, naming where its results are."""
    experiment = find_study(reference, "experiment")
    if experiment is None:
        return
    results = f"the results of all are in {experiment.folder / 'table.csv'} and {experiment.folder / 'figure.png'}"
    if not (experiment.folder / "table.csv").is_file():
        results = f"it is unfinished, rerun the same {experiment_command(experiment.kind)} command"
    raise RunError(
        f"{experiment.name}: is an experiment of {experiment.kind}, and one run is needed; {experiment.run_hint}; "
        f"{results}"
    )


def cases_of_part(run: Run, cohort: Cohort, part: str) -> tuple[Case, ...]:
    """The cohort's cases of one part of the run's split, with a mask, or for a classifier with a class.

    Raises DataError when there are none: a cohort of other patients is scored with part "all". Also when a case has
    other images than the run's case of the same name.
    """
    if part == "all":
        cases = cohort.cases
        check_no_leak(run, cases, "score it with --part test")
    else:
        listed = {case.id for case in run.data().cases}  # less what was excluded from it
        cases = tuple(case for case in cohort.of_patients(getattr(run.split(), part)) if case.id in listed)
        _check_known_cases(run, cases, cohort)
    config = run.config()
    classes = config.data.classes or () if config.system.task == "classification" else ()
    scorable = tuple(case for case in cases if case.mask is not None or case.class_name in classes)
    if not scorable and part == "all":
        missing = f"a class of {run.name}'s, {', '.join(classes)}" if classes else "a mask"
        raise DataError(f"{cohort.root}: no case has {missing}, to score it by; give a cohort that has")
    if not scorable:
        raise DataError(
            f"{cohort.root}: holds no case with a {'class' if classes else 'mask'} of {run.name}'s {part} patients; "
            "give the data it was trained on, or evaluate another cohort with --part all"
        )
    return scorable


def check_no_leak(run: Run, cases: Sequence[Case], remedy: str) -> None:
    """Raises DataError, with what to do, when the run was trained on some of these patients, by name."""
    healthy = run.data().healthy
    subjects = healthy.patients if healthy else frozenset()
    trained_on = {case.patient for case in cases} & {*run.split().train, *run.split().validation, *subjects}
    if trained_on:
        raise DataError(
            f"{run.name}: was trained on {len(trained_on)} of these patients, such as {min(trained_on)}; {remedy}, "
            "or, if they only share their names, rename them in a CSV manifest"
        )


def _check_known_cases(run: Run, cases: Sequence[Case], cohort: Cohort) -> None:
    contents = {case.id: case.content for case in run.data().cases}
    for case in cases:
        try:
            same = contents[case.id] == content_hash(case)
        except OSError:
            continue  # loading it reports the problem
        if not same:
            raise DataError(
                f"{cohort.root}: {case.id} has other images or another mask than when {run.name} was trained; "
                "give that data, or evaluate another cohort with --part all"
            )


def each_scan(
    title: str, cases: Sequence[Case], modalities: Sequence[str], use: Callable[[Case, Scan], object]
) -> list[str]:
    """Read the images of one case after the other and use them; returns a message for each that cannot be read."""
    problems = []
    with show.bar(f"{title} {len(cases)} case(s)") as advance:
        for index, case in enumerate(cases, start=1):
            try:
                scan = load_scan(case, modalities, with_mask=False)
                for warning in scan.warnings:
                    show.warn(f"{case.id}: {warning}")
                use(case, scan)
            except DataError as error:
                problems.append(str(error))
            advance(index, len(cases))
    return problems


def warn_of_few(patients: int, chosen: str = "thresholds") -> None:
    """Warn where what was chosen rests on few validation patients."""
    if (warning := few_patients_warning(patients)) is not None:
        show.warn(f"{chosen}: {warning}")


def read_slices(cases: Sequence[Case], config: RunConfig, title: str) -> SliceSet:
    """The cases' prepared slices, under a progress bar."""
    with show.bar(title) as advance:
        return prepared_slices(cases, config, advance)

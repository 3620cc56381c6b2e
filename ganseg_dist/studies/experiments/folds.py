"""K-fold cross-validation by patient: every patient is tested once."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ganseg_dist.config import RunConfig
from ganseg_dist.data.cohort import Cohort, Split
from ganseg_dist.errors import ConfigError, RunError
from ganseg_dist.inference.model_folder import is_model_folder
from ganseg_dist.studies.study import Study
from ganseg_dist.studies.trial import Trial


def fold_trials(config: RunConfig, cohort: Cohort, *, folds: int) -> list[Trial]:
    """A trial for each fold: its patients are the test set, the next fold's the validation set, the rest train.

    Patients are assigned to the folds site after site, so that each fold has its share of every site.

    Raises ConfigError for fewer than three folds, or more than there are patients.
    """
    check_folds(folds)
    if len(cohort.patients) < folds:
        raise ConfigError(
            f"--folds: {len(cohort.patients)} patients of {cohort.root} cannot fill {folds} folds; lower it"
        )
    dealt = deal(cohort, folds, config.seed)
    trials = []
    for fold in range(folds):
        test, validation = dealt[fold], dealt[(fold + 1) % folds]
        train = [patient for patient in cohort.patients if patient not in {*test, *validation}]
        split = Split(tuple(train), tuple(sorted(validation)), tuple(sorted(test)))
        trials.append(Trial(f"fold{fold + 1}", {"fold": fold + 1}, config, split))
    return trials


def check_folds(folds: int) -> None:
    """Raises ConfigError where test and validation would leave no fold to train on."""
    if folds < 3:
        raise ConfigError(f"--folds {folds}: leaves none to train on; give 3 or more")


def deal(cohort: Cohort, folds: int, seed: int) -> list[list[str]]:
    """Patients of each fold, with every site spread over the folds."""
    rng = np.random.default_rng(seed)
    site_of = {case.patient: case.site for case in sorted(cohort.cases, key=lambda case: (case.patient, case.site))}
    order = [
        str(patient)
        for site in sorted(set(site_of.values()))
        for patient in rng.permutation(sorted(patient for patient in site_of if site_of[patient] == site))
    ]
    return [order[fold::folds] for fold in range(folds)]


def check_folds_finished(study: Study) -> None:
    """Raises RunError when a fold is unfinished, or when the study is of another kind."""
    if study.kind != "folds":
        raise RunError(
            f"{study.name}: is an experiment of {study.kind}, and only folds make an ensemble; {study.run_hint}"
        )
    missing = [trial for trial in study.trial_names if not study.result_file(trial).is_file()]
    if missing:
        raise RunError(
            f"{study.name}: lacks {', '.join(missing)} of {len(study.trial_names)} folds; rerun the same "
            "ganseg experiment folds command, which resumes it"
        )


def fold_models(study: Study) -> dict[str, Path]:
    """The model folder of each fold, by the fold's name.

    Raises RunError when a fold is missing, or when the study is of another kind: its trials deliberately differ in
    their patients or their recipe.
    """
    check_folds_finished(study)
    models = {trial: study.trial_run(trial).model for trial in study.trial_names}
    for trial, model in models.items():
        if not is_model_folder(model):
            raise RunError(
                f"{study.name}: {trial} has no model in {model}; restore it, or remove {model.parent} and "
                f"{study.result_file(trial)} and rerun the same ganseg experiment folds command"
            )
    return models

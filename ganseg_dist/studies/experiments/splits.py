"""Trials that differ in their patients: folds, shares of the training patients, and one hospital left out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ganseg_dist.config import RunConfig, override
from ganseg_dist.data.cohort import UNKNOWN_SITE, Cohort, Split, split_by_patient
from ganseg_dist.errors import ConfigError, DataError, RunError
from ganseg_dist.inference.model_folder import is_model_folder
from ganseg_dist.names import LONGEST_PART, folder_names
from ganseg_dist.studies.experiments.arms import image_arms
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


def fraction_trials(
    config: RunConfig, split: Split, *, percentages: Sequence[int], arm_names: Sequence[str], seeds: int
) -> list[Trial]:
    """A trial for each percentage, arm and seed, on the same test patients (GAN-OSMOSIS, Tables 2-5).

    Patients are nested: those of 10% are among those of 20%. Another seed means other patients, weights and noise;
    validation and test patients stay the same. All trials train the same epochs, with fewer steps for fewer patients.

    Raises ConfigError for a percentage outside 1 to 100.
    """
    check_percentages(percentages)
    configs = image_arms(arm_names, config)
    return [
        Trial(
            f"{percentage:03d}-{arm}-seed{seed}",
            {"percentage": percentage, "arm": arm, "seed": seed, "patients": len(part.train)},
            override(configs[arm], {"seed": seed}),
            part,
        )
        for percentage in sorted(set(percentages))
        for seed in range(seeds)
        for part in [nested(split, percentage, seed)]
        for arm in arm_names
    ]


def check_percentages(percentages: Sequence[int]) -> None:
    """Raises ConfigError for a percentage outside 1 to 100, or an empty list."""
    strange = [percentage for percentage in percentages if not 1 <= percentage <= 100]
    if strange or not percentages:
        given = strange[0] if strange else "(none)"
        raise ConfigError(f"--fractions {given}: is no percentage from 1 to 100; as in --fractions 10,50,100")


def nested(split: Split, percentage: int, seed: int) -> Split:
    """The split with this percentage of its training patients, at least one."""
    order = np.random.default_rng(seed).permutation(split.train).tolist()
    kept = order[: math.ceil(percentage * len(order) / 100)]
    return Split(tuple(sorted(kept)), split.validation, split.test)


def transfer_trials(config: RunConfig, cohort: Cohort, *, arm_names: Sequence[str]) -> list[Trial]:
    """A trial for each site and arm: that site's patients are the test set, the other sites' train and validate.

    Raises DataError when fewer than two sites are known.
    """
    sites = sorted({case.site for case in cohort.cases} - {UNKNOWN_SITE})
    if len(sites) < 2:
        names = ", ".join(sites) or "none"
        raise DataError(
            f"{cohort.root}: sites known: {names}; leaving one out needs two, name them in a column site, of the "
            "patients.csv beside pictures or of a CSV manifest"
        )
    trials = []
    folders = folder_names(sites, longest=LONGEST_PART)
    for site in sites:
        site_patients = {case.patient for case in cohort.cases if case.site == site}
        others = cohort.without(case.id for case in cohort.cases if case.patient in site_patients)
        inner = split_by_patient(others, validation=config.data.validation_fraction, test=0.0, seed=config.seed)
        split = Split(inner.train, inner.validation, tuple(sorted(site_patients)))
        trials += [
            Trial(f"without-{folders[site]}-{arm}", {"site": site, "arm": arm}, arm_config, split)
            for arm, arm_config in image_arms(arm_names, config).items()
        ]
    return trials

"""Leave one hospital out: train at all hospitals but one, test at that one."""

from __future__ import annotations

from collections.abc import Sequence

from ganseg_dist.config import RunConfig
from ganseg_dist.data.cohort import UNKNOWN_SITE, Cohort, Split, split_by_patient
from ganseg_dist.errors import DataError
from ganseg_dist.names import LONGEST_PART, folder_names
from ganseg_dist.studies.experiments.arms import image_arms
from ganseg_dist.studies.trial import Trial


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

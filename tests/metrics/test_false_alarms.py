"""Differences are declared as rarely as they say where there is none, and often enough where there is one."""

import numpy as np
import pytest

from ganseg_dist.metrics.statistics import compare
from verification.false_alarms import DIFFERENCES, HELD, alarms_over_seeds, sample_differences, verdicts

PATIENTS = (6, 8, 12, 20, 40)
REPEATS = 2000


def declared(name, patients, shift):
    """(REPEATS,) verdicts, as `compare` gives them; sign flips of all repetitions at once."""
    differences = sample_differences(DIFFERENCES[name], patients, shift=shift, repeats=REPEATS)
    found = verdicts(differences)
    for index in range(20):
        assert compare(differences[index : index + 1]).differs == found[index]
    return found


@pytest.mark.parametrize("name", HELD)
@pytest.mark.parametrize("patients", PATIENTS)
def test_at_most_six_in_a_hundred_null_differences_are_called_real(name, patients):
    assert declared(name, patients, 0.0).mean() <= 0.06


@pytest.mark.parametrize(("patients", "least"), [(6, 0.25), (8, 0.5), (12, 0.75), (20, 0.9), (40, 0.95)])
@pytest.mark.parametrize("name", HELD)
def test_a_mean_of_one_standard_deviation_is_found(name, patients, least):
    assert declared(name, patients, 1.0).mean() >= least


def test_a_percentile_bootstrap_calls_more_of_them_real():
    """Why it is not used: the test above would fail with it."""
    rng = np.random.default_rng(0)
    alarms = []
    for differences in DIFFERENCES["normal"](rng, (REPEATS, 6)):
        means = differences[rng.integers(6, size=(500, 6))].mean(axis=1)
        low, high = np.percentile(means, (2.5, 97.5))
        alarms.append(low > 0 or high < 0)
    assert np.mean(alarms) > 0.1


@pytest.mark.parametrize("patients", [8, 20])
@pytest.mark.parametrize("seeds", [3, 5])
def test_seeds_that_differ_as_much_as_patients_raise_no_more_alarms(seeds, patients):
    alarms, over_means = alarms_over_seeds(patients, seeds, repeats=REPEATS)
    assert alarms <= 0.06
    assert over_means > 0.1, "what the seeds are counted for"

"""Differences are declared as rarely as they say where there is none, and often enough where there is one."""

import numpy as np
import pytest

from ganseg_dist.metrics.statistics import LEVEL, compare, interval_of, sign_flips
from verification.false_alarms import DIFFERENCES, HELD

PATIENTS = (6, 8, 12, 20, 40)
REPEATS = 2000


def declared(name, patients, shift):
    """(REPEATS,) verdicts, as `compare` gives them; sign flips of all repetitions at once."""
    rng = np.random.default_rng([7, patients])
    drawn = DIFFERENCES[name](rng, (REPEATS, patients)) + shift
    intervals = [interval_of(differences[None]) for differences in drawn]
    excluded = np.array([interval.low > 0 or interval.high < 0 for interval in intervals])
    verdicts = excluded.copy()
    verdicts[excluded] = sign_flips(drawn[excluded]) <= LEVEL
    for index in range(20):
        assert compare(drawn[index : index + 1]).differs == verdicts[index]
    return verdicts


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
    rng = np.random.default_rng(seeds)
    alarms, over_means = [], []
    for _ in range(REPEATS):
        drawn = rng.normal(size=(1, patients)) + rng.normal(size=(seeds, 1)) + rng.normal(size=(seeds, patients))
        for interval, found in ((interval_of(drawn), alarms), (interval_of(drawn.mean(axis=0)[None]), over_means)):
            found.append(interval.low > 0 or interval.high < 0)
    assert np.mean(alarms) <= 0.06
    assert np.mean(over_means) > 0.1, "what the seeds are counted for"

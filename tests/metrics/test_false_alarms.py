"""The false-alarm rate and the power of `compare`."""

import numpy as np
import pytest

from ganseg_dist.metrics.statistics import compare
from verification.false_alarms import DIFFERENCES, HELD, alarms_over_seeds, sample_differences, verdicts

PATIENTS = (6, 8, 12, 20, 40)
REPEATS = 2000


def verdicts_of_shift(name, patients, shift):
    """(REPEATS,) verdicts, as `compare` gives them; sign flips of all repetitions at once."""
    differences = sample_differences(DIFFERENCES[name], patients, shift=shift, repeats=REPEATS)
    found = verdicts(differences)
    for index in range(20):
        assert compare(differences[index : index + 1]).differs == found[index]
    return found


@pytest.mark.parametrize("name", HELD)
@pytest.mark.parametrize("patients", PATIENTS)
def test_compare_false_alarm_rate_is_at_most_six_percent(name, patients):
    assert verdicts_of_shift(name, patients, 0.0).mean() <= 0.06


@pytest.mark.parametrize(("patients", "least"), [(6, 0.25), (8, 0.5), (12, 0.75), (20, 0.9), (40, 0.95)])
@pytest.mark.parametrize("name", HELD)
def test_compare_detects_shift_of_one_standard_deviation(name, patients, least):
    assert verdicts_of_shift(name, patients, 1.0).mean() >= least


def test_percentile_bootstrap_has_higher_false_alarm_rate():
    """The reason not to use it: its rate exceeds the bound of the tests above."""
    rng = np.random.default_rng(0)
    alarms = []
    for differences in DIFFERENCES["normal"](rng, (REPEATS, 6)):
        means = differences[rng.integers(6, size=(500, 6))].mean(axis=1)
        low, high = np.percentile(means, (2.5, 97.5))
        alarms.append(low > 0 or high < 0)
    assert np.mean(alarms) > 0.1


@pytest.mark.parametrize("patients", [8, 20])
@pytest.mark.parametrize("seeds", [3, 5])
def test_compare_over_seeds_false_alarm_rate_is_at_most_six_percent(seeds, patients):
    alarms, over_means = alarms_over_seeds(patients, seeds, repeats=REPEATS)
    assert alarms <= 0.06
    assert over_means > 0.1, "without the variance between seeds"

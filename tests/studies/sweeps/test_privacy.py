"""The trials of a sweep share one privacy budget."""

import pytest

from ganseg_dist.config import override
from ganseg_dist.errors import ConfigError
from ganseg_dist.federation.accountant import epsilon_of
from ganseg_dist.federation.privacy import Terms
from ganseg_dist.federation.schedule import rounds_of
from ganseg_dist.studies.sweeps.privacy import describe_budget, with_sweep_noise
from ganseg_dist.systems import recipe

RESOLVED = {"data.modalities": ["t1"], "data.regions": ["wt"], "system.gan": False, "train.epochs": 6}


def config(**changes):
    return override(recipe("ganet_seg_debug"), RESOLVED | {key.replace("__", "."): v for key, v in changes.items()})


def test_with_sweep_noise_is_unchanged_without_epsilon():
    assert with_sweep_noise(config(), 20, 30) == config()
    unlimited = config(federation__privacy__noise_multiplier=2.0)
    assert with_sweep_noise(unlimited, 20, 30) == unlimited
    assert describe_budget(unlimited, 20, hospitals=True) is None


@pytest.mark.parametrize("rounds", [2, 6])
def test_with_sweep_noise_splits_federation_epsilon_over_trials(rounds):
    base = config(federation__privacy__epsilon=8.0, federation__rounds=rounds)
    trial = with_sweep_noise(base, 10, 30)
    z = trial.federation.privacy.noise_multiplier
    planned = rounds_of(trial)
    assert epsilon_of(z, 10 * planned, 1e-5) == pytest.approx(8.0, rel=1e-6)
    assert Terms.of(trial.federation.privacy, planned).spent(planned) < 8.0 / 2
    assert "all 10 trials together spend at most an epsilon of 8" in describe_budget(base, 10, hospitals=True)
    assert describe_budget(base, 10, hospitals=False) is None, "a plain sweep has no sites to protect"


def test_with_sweep_noise_rejects_insufficient_noise_multiplier():
    one = with_sweep_noise(config(federation__privacy__epsilon=8.0), 1, 30).federation.privacy.noise_multiplier
    base = config(federation__privacy__epsilon=8.0, federation__privacy__noise_multiplier=one)
    assert with_sweep_noise(base, 1, 30) == base
    with pytest.raises(ConfigError, match=r"federation\.privacy\.epsilon: 3 trials, 18 rounds in all, spend 1\d"):
        with_sweep_noise(base, 3, 30)


def test_with_sweep_noise_splits_patient_epsilon_over_trials():
    opacus = pytest.importorskip("opacus.accountants", reason="patients' privacy needs the privacy extra")
    trial = with_sweep_noise(config(train__privacy__epsilon=8.0), 5, 40)
    accountant = opacus.RDPAccountant()
    steps = 10 * 6 * 5  # an epoch shows each of 40 patients once, 4 a step
    accountant.history = [(trial.train.privacy.noise_multiplier, 4 / 40, steps)]
    assert 0.97 * 8 < accountant.get_epsilon(1e-5) <= 8.0
    assert "of any one patient" in describe_budget(config(train__privacy__epsilon=8.0), 5, hospitals=False)
    given = config(train__privacy__epsilon=8.0, train__privacy__noise_multiplier=0.5)
    assert with_sweep_noise(given, 5, 40) == given
    assert describe_budget(given, 5, hospitals=False) is None, "the noise was chosen for no budget"

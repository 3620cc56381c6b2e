import math

import pytest
from scipy.stats import norm

from ganseg_dist.federation.accountant import (
    delta_of,
    epsilon_at,
    epsilon_of,
    noise_multiplier_for,
    releases_within,
)


def test_delta_of_epsilon_0_is_total_variation():
    """Total variation of N(0, 1) and N(mu, 1): 2 Phi(mu / 2) - 1."""
    assert delta_of(0.0, 1.0) == pytest.approx(2 * norm.cdf(0.5) - 1)
    assert delta_of(0.0, 0.2) == pytest.approx(2 * norm.cdf(0.1) - 1)


def test_delta_of_matches_optimal_test_of_two_normals():
    """The best test between N(0, 1) and N(1, 1) decides "1" above 1/2 + epsilon: P(hit) - e^epsilon P(false alarm)."""
    above = 0.5 + 1.0
    assert delta_of(1.0, 1.0) == pytest.approx(norm.sf(above, loc=1) - math.e * norm.sf(above))


def test_delta_of_is_accurate_in_tails():
    """With t = epsilon / mu - mu / 2 it is phi(t) (R(t) - R(t + mu)), and Mills' ratio R(t) is nearly 1 / t."""
    assert delta_of(30.0, 1.0) == pytest.approx(norm.pdf(29.5) * (1 / 29.5 - 1 / 30.5), rel=0.01)
    assert delta_of(900.0, 1000.0) == pytest.approx(1.0)


@pytest.mark.parametrize(("z", "releases", "delta"), [(1.0, 1, 1e-5), (4.0, 50, 1e-5), (0.3, 7, 1e-9), (50.0, 3, 0.1)])
def test_epsilon_of_inverts_delta_of(z, releases, delta):
    epsilon = epsilon_of(z, releases, delta)
    mu = math.sqrt(releases) / z
    if epsilon:
        assert delta_of(epsilon, mu) == pytest.approx(delta, rel=1e-6)
    else:
        assert delta_of(0.0, mu) <= delta


def test_epsilon_of_four_releases_equals_one_of_half_noise():
    assert epsilon_of(3.0, 4, 1e-5) == pytest.approx(epsilon_of(1.5, 1, 1e-5))
    assert epsilon_of(3.0, 0, 1e-5) == 0


def test_epsilon_at_sums_federations_in_mu_squared():
    """Three of z = 2 and one of z = 1: mu^2 = 3 / 4 + 1, as of seven of z = 2."""
    assert epsilon_at(math.sqrt(3 / 4 + 1), 1e-5) == pytest.approx(epsilon_of(2.0, 7, 1e-5))


def test_noise_multiplier_for_is_below_classic_gaussian_bound():
    """sqrt(2 ln(1.25 / delta)) / epsilon keeps epsilon below 1 (Dwork and Roth 2014, Theorem A.1)."""
    classic = math.sqrt(2 * math.log(1.25 / 1e-5)) / 0.5
    assert 0.3 < epsilon_of(classic, 1, 1e-5) < 0.5
    assert noise_multiplier_for(0.5, 1e-5, 1) < classic


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 8.0, 300.0])
@pytest.mark.parametrize("releases", [1, 2, 30, 1000])
def test_noise_multiplier_for_spends_exactly_the_budget(epsilon, releases):
    z = noise_multiplier_for(epsilon, 1e-5, releases)
    assert epsilon_of(z, releases, 1e-5) <= epsilon
    assert epsilon_of(z, releases, 1e-5) == pytest.approx(epsilon, rel=1e-6)
    assert releases_within(epsilon, 1e-5, z) == releases


def test_releases_within_is_largest_number_within_budget():
    within = releases_within(5.0, 1e-5, 3.0)
    assert epsilon_of(3.0, within, 1e-5) <= 5.0 < epsilon_of(3.0, within + 1, 1e-5)
    assert releases_within(0.1, 1e-5, 0.5) == 0


@pytest.mark.parametrize(("z", "releases"), [(1.0, 1), (1.0, 10), (4.0, 50), (0.5, 3)])
def test_epsilon_of_is_bounded_above_by_opacus_accountants(z, releases):
    """Renyi accounting loses some 7 per cent; the privacy-loss distribution's stated error is 0.01."""
    accountants = pytest.importorskip("opacus.accountants", reason="opacus is in the extra `privacy`")
    exact = epsilon_of(z, releases, 1e-5)
    renyi, numeric = accountants.RDPAccountant(), accountants.PRVAccountant()
    renyi.history = numeric.history = [(z, 1.0, releases)]
    assert exact < renyi.get_epsilon(1e-5) < 1.1 * exact
    assert exact < numeric.get_epsilon(1e-5) < exact + 0.02

"""The exact privacy loss of rounds of Gaussian noise.

One release is a sum to which a hospital adds a vector of norm at most D, plus normal noise of standard deviation z D in
every coordinate; z is the noise multiplier. k releases, even if each depends on the earlier ones, together disclose as
much as a single one of multiplier z / sqrt(k) (Dong, Roth and Su, "Gaussian Differential Privacy", JRSS B 2022,
Corollary 3.3): they are mu-GDP with mu = sqrt(k) / z, and for that delta is known in closed form (Balle and Wang,
"Improving the Gaussian Mechanism for Differential Privacy", ICML 2018, Theorem 8):

    delta(epsilon) = Phi(mu / 2 - epsilon / mu) - exp(epsilon) Phi(-mu / 2 - epsilon / mu)

No bound is involved, as every hospital is in every round: there is no subsampling to account for. Computations
use logarithms, so that neither a large epsilon nor a small delta under- or overflows.

Everywhere mu and z are above 0, delta is in (0, 1), and epsilon is above 0, or 0 in `delta_of`.
"""

from __future__ import annotations

import math

from scipy.optimize import brentq
from scipy.special import log_ndtr

ROUNDED_UP = 1 + 1e-9
"""Factor on a noise multiplier, which is solved for to about 12 digits: the epsilon that it then spends is never above
the one that it was solved for."""
SMALLEST, LARGEST = 1e-9, 1e6
"""Bounds of the search for mu."""


def delta_of(epsilon: float, mu: float) -> float:
    """The smallest delta with which a mu-GDP mechanism is (epsilon, delta)-private."""
    first = log_ndtr(mu / 2 - epsilon / mu)
    second = epsilon + log_ndtr(-mu / 2 - epsilon / mu)
    return float(math.exp(first) * -math.expm1(min(second - first, 0.0)))


def epsilon_of(noise_multiplier: float, releases: int, delta: float) -> float:
    """The smallest epsilon with which these releases together are (epsilon, delta)-private; 0 for none."""
    return epsilon_at(math.sqrt(releases) / noise_multiplier, delta)


def epsilon_at(mu: float, delta: float) -> float:
    """The smallest epsilon with which a mu-GDP mechanism is (epsilon, delta)-private.

    Mechanisms of mu_1, mu_2, ... on the same hospital are together sqrt(mu_1^2 + mu_2^2 + ...)-GDP.
    """
    if mu == 0 or delta_of(0.0, mu) <= delta:
        return 0.0
    # delta <= Phi(mu / 2 - epsilon / mu), which is below delta at this epsilon: Phi(-t) <= exp(-t^2 / 2).
    upper = mu * (mu / 2 + math.sqrt(2 * math.log(1 / delta)))
    return float(brentq(lambda epsilon: delta_of(epsilon, mu) - delta, 0.0, upper, xtol=1e-12))


def noise_multiplier_for(epsilon: float, delta: float, releases: int) -> float:
    """The smallest z with which these releases, 1 or more, together are (epsilon, delta)-private."""
    mu = brentq(lambda mu: delta_of(epsilon, mu) - delta, SMALLEST, LARGEST, xtol=1e-12)
    return float(math.sqrt(releases) / mu * ROUNDED_UP)


def releases_within(epsilon: float, delta: float, noise_multiplier: float) -> int:
    """The number of releases of this z that together stay within epsilon at delta."""
    whole = math.floor((noise_multiplier / noise_multiplier_for(epsilon, delta, 1)) ** 2)
    return whole + (epsilon_of(noise_multiplier, whole + 1, delta) <= epsilon)

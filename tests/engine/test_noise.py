import math

import numpy as np
import pytest
from scipy.stats import kstest, norm

from ganseg_dist.engine.noise import chosen, normal_noise, secret_key


def noise_of(*values):
    """Noise from these 64-bit numbers."""
    return normal_noise((len(values),), 1.0, lambda count: np.array(values, np.uint64).tobytes())


def test_normal_noise_maps_integer_to_quantile_and_sign():
    """The middle of each half maps to a quartile, 0.674 deviations."""
    middle = 2**63
    assert noise_of(middle, middle | 1).tolist() == pytest.approx([-norm.ppf(0.75), norm.ppf(0.75)])
    assert noise_of(2**64 - 1, 2**64 - 2).tolist() == pytest.approx([0.0, 0.0], abs=1e-15)


def test_normal_noise_tails_are_finite_beyond_nine_deviations():
    assert noise_of(0, 1).tolist() == pytest.approx([norm.ppf(2.0**-65), -norm.ppf(2.0**-65)])
    assert abs(noise_of(0)[0]) > 9


def test_normal_noise_is_normal_with_given_deviation():
    noise = normal_noise((50, 400), 0.25, np.random.default_rng(0).bytes)
    assert noise.shape == (50, 400)
    assert noise.dtype == np.float64
    assert kstest(noise.ravel() / 0.25, "norm").pvalue > 0.01
    assert abs(np.corrcoef(noise[:25].ravel(), noise[25:].ravel())[0, 1]) < 5 / math.sqrt(10000)


def test_normal_noise_is_fresh_on_each_call():
    assert (normal_noise((8,), 1.0) != normal_noise((8,), 1.0)).all()
    assert normal_noise((), 1.0).shape == ()
    assert normal_noise((0, 3), 1.0).shape == (0, 3)


def test_chosen_is_independent_with_given_rate():
    taken = chosen((100, 100), 0.3, np.random.default_rng(0).bytes)
    assert taken.shape == (100, 100)
    assert taken.mean() == pytest.approx(0.3, abs=4 * math.sqrt(0.3 * 0.7 / 10000))
    assert chosen((50,), 1.0).all()
    assert not chosen((50,), 0.0).any()


def test_chosen_compares_integer_with_rate():
    values = np.array([2**62 - 1, 2**62], np.uint64)
    assert chosen((2,), 0.25, lambda count: values.tobytes()).tolist() == [True, False]


def test_secret_key_is_fresh_and_taken_from_entropy():
    assert secret_key() != secret_key()
    assert secret_key(lambda count: b"\x01" + bytes(count - 1)) == 1

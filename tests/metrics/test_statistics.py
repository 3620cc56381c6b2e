import numpy as np
import pytest
from scipy import stats

from ganseg_dist.errors import DataError
from ganseg_dist.metrics.statistics import (
    FEWEST_FOR_VERDICT,
    Interval,
    compare,
    compare_paired,
    interval_of,
    mean_interval,
)


def test_mean_interval_of_one_subject_or_equal_values_is_a_point():
    assert mean_interval([0.7]) == Interval(0.7, 0.7, 0.7, 1)
    assert mean_interval([0.6, 0.8], ["a", "a"]) == Interval(0.7, pytest.approx(0.7), pytest.approx(0.7), 1)
    same = mean_interval([0.1 + 0.2] * 5)
    assert (same.low, same.high, same.n) == (same.mean, same.mean, 5)


def test_mean_interval_of_two_subjects_is_student_t():
    found = mean_interval([0.0, 1.0])  # s / sqrt(2) = 1/2, and t of one degree of freedom is 12.706
    assert (found.mean, found.n) == (0.5, 2)
    assert (found.low, found.high) == pytest.approx((0.5 - 12.706 / 2, 0.5 + 12.706 / 2), abs=1e-3)
    assert mean_interval([0.0, 1.0], bounds=(0, 1)) == Interval(0.5, 0, 1, 2)


def test_mean_interval_of_symmetric_values_is_student_t():
    values = np.array([-3.0, -1.0, -0.5, 0.5, 1.0, 3.0]) + 7
    low, high = stats.t.interval(0.95, 5, loc=7, scale=stats.sem(values))
    found = mean_interval(values.tolist())
    assert (found.low, found.high) == pytest.approx((low, high))


def test_mean_interval_of_skewed_values_uses_hall_transformation():
    values = np.random.default_rng(0).gamma(4, size=12)
    found = mean_interval(values.tolist())
    error, a = stats.sem(values), stats.skew(values, bias=False) / np.sqrt(12)
    at = (values.mean() - found.high) / error
    assert at + a * at**2 / 3 + a**2 * at**3 / 27 + a / 6 == pytest.approx(-stats.t.ppf(0.975, 11))
    assert found.high > values.mean() + stats.t.ppf(0.975, 11) * error  # longer towards the tail
    assert found.low == pytest.approx(values.mean() - stats.t.ppf(0.975, 11) * error)


def test_mean_interval_is_limited_for_an_outlier():
    values = np.array([0.35, *np.linspace(0.7, 0.87, 11)])
    found, error = mean_interval(values.tolist()), stats.sem(values)
    a = stats.skew(values, bias=False) / np.sqrt(12)
    assert found.low == pytest.approx(values.mean() - 3 / abs(a) * error)
    assert found.high == pytest.approx(values.mean() + stats.t.ppf(0.975, 11) * error)


def test_mean_interval_counts_sessions_of_a_subject_once():
    rng = np.random.default_rng(0)
    per_subject = rng.normal(size=20)
    values, subjects = np.repeat(per_subject, 10).tolist(), np.repeat([f"p{i}" for i in range(20)], 10).tolist()
    grouped, once = mean_interval(values, subjects), mean_interval(per_subject.tolist())
    assert (grouped.mean, grouped.low, grouped.high, grouped.n) == pytest.approx((once.mean, once.low, once.high, 20))


def test_mean_interval_weights_subjects_by_number_of_values():
    found = mean_interval([1.0, 1.0, 1.0, 0.0, 0.0], ["a", "a", "a", "b", "c"])
    assert (found.mean, found.n) == (pytest.approx(0.6), 3)


def test_interval_of_equal_seeds_equals_that_of_one_seed():
    values = np.random.default_rng(1).normal(size=9)
    once, twice = interval_of(values[None]), interval_of(np.stack([values, values]))
    assert (twice.low, twice.high) == pytest.approx((once.low, once.high))


def test_interval_of_differing_seeds_includes_seed_variance():
    """All patients of a seed are equal, which leaves two values and one degree of freedom."""
    low, high = np.full(8, 0.0), np.full(8, 1.0)
    found = interval_of(np.stack([low, high]) + 1e-9 * np.random.default_rng(0).normal(size=(2, 8)))
    expected = mean_interval([0.0, 1.0])
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-3)


def test_interval_of_seeds_adds_variances_in_quadrature():
    symmetric = np.array([-3.0, -1.0, -0.5, 0.5, 1.0, 3.0])
    values = symmetric + np.array([[0.0], [2.0], [4.0]])  # nothing is left beside subjects and seeds
    found = interval_of(values)
    of_subjects = stats.t.ppf(0.975, 5) * stats.sem(symmetric)
    of_seeds = stats.t.ppf(0.975, 2) * stats.sem([0.0, 2.0, 4.0])
    half = np.hypot(of_subjects, of_seeds)
    assert (found.mean, found.low, found.high) == pytest.approx((2, 2 - half, 2 + half))
    assert compare(values).p_t is None


def test_interval_of_seeds_below_chance_adds_nothing():
    rng = np.random.default_rng(2)
    values = rng.normal(size=(3, 10))
    values -= values.mean(axis=1, keepdims=True)
    found, once = interval_of(values), interval_of(values.mean(axis=0, keepdims=True))
    assert (found.low, found.high) == pytest.approx((once.low, once.high))


def values_by_patient(values):
    return {f"p{i:02}": value for i, value in enumerate(values)}


def test_compare_paired_declares_constant_gain():
    base = np.random.default_rng(0).random(10)
    found = compare_paired(values_by_patient(base + 0.1), values_by_patient(base))
    assert (found.difference.mean, found.difference.n) == (pytest.approx(0.1), 10)
    assert found.differs is True
    assert found.p_sign_flip == found.p_wilcoxon == pytest.approx(2 / 2**10)


def test_compare_paired_does_not_declare_noise():
    noise = np.random.default_rng(3).normal(size=30)
    found = compare_paired(values_by_patient(noise - noise.mean()), values_by_patient(np.zeros(30)))
    assert found.differs is False
    assert min(found.p_t, found.p_sign_flip, found.p_wilcoxon) > 0.05


def test_compare_paired_p_values_equal_scipy():
    differences = np.random.default_rng(4).normal(0.5, 1, 9)
    found = compare_paired(values_by_patient(differences), values_by_patient(np.zeros(9)))
    assert found.p_t == pytest.approx(stats.ttest_1samp(differences, 0).pvalue)
    assert found.p_wilcoxon == pytest.approx(stats.wilcoxon(differences).pvalue)


@pytest.mark.parametrize(("n", "tolerance"), [(2, 0), (6, 0), (9, 0), (20, 0.03)])
def test_sign_flip_p_value_equals_scipy_permutation_test(n, tolerance):
    for differences in np.random.default_rng(n).normal(0.4, 1, (4, n)):
        known = stats.permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=9999, rng=1)
        found = compare_paired(values_by_patient(differences), values_by_patient(np.zeros(n))).p_sign_flip
        assert found == pytest.approx(known.pvalue, abs=tolerance or 1e-12)


def test_compare_paired_matches_pairs_by_name():
    first = {"a": 1.0, "b": 2.0}
    assert compare_paired(first, {"b": 2.0, "a": 1.0}).difference == Interval(0, 0, 0, 2)


def test_compare_paired_gives_no_verdict_for_too_few_pairs():
    few, enough = ([0.2 + 0.01 * i for i in range(n)] for n in (FEWEST_FOR_VERDICT - 1, FEWEST_FOR_VERDICT))
    found = compare_paired(values_by_patient(few), values_by_patient([0.1] * len(few)))
    assert (found.differs, found.p_wilcoxon) == (None, None)
    found = compare_paired(values_by_patient(enough), values_by_patient([0.1] * len(enough)))
    assert (found.differs, found.p_wilcoxon, found.p_sign_flip) == (True, pytest.approx(1 / 32), pytest.approx(1 / 32))
    same = compare_paired(values_by_patient([0.2] * 9), values_by_patient([0.2] * 9))
    assert (same.differs, same.p_t, same.p_wilcoxon, same.difference.n) == (False, None, None, 9)
    alone = compare_paired({"a": 0.3}, {"a": 0.1})
    assert (alone.difference.n, alone.differs, alone.p_sign_flip) == (1, None, None)


def test_statistics_reject_invalid_inputs():
    with pytest.raises(DataError, match=r"b: is in one arm only \(1 such"):
        compare_paired({"a": 1.0, "b": 1.0}, {"a": 1.0})
    with pytest.raises(DataError, match="at least one value"):
        mean_interval([])
    with pytest.raises(DataError, match="1 of 2 are not finite"):
        mean_interval([1.0, float("nan")])
    with pytest.raises(DataError, match="1 names for 2 values"):
        mean_interval([1.0, 2.0], ["a"])

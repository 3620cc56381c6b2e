import numpy as np
import pytest

from ganseg_dist.errors import DataError
from ganseg_dist.metrics.statistics import Interval, bootstrap_mean, compare_paired


def test_one_subject_has_a_defined_interval():
    assert bootstrap_mean([0.7]) == Interval(0.7, 0.7, 0.7, 1)
    assert bootstrap_mean([0.6, 0.8], ["a", "a"]) == Interval(0.7, pytest.approx(0.7), pytest.approx(0.7), 1)


def test_interval_of_two_subjects_by_hand():
    # Resamples of {0, 1} have means 0, 1/2, 1 with probabilities 1/4, 1/2, 1/4.
    assert bootstrap_mean([0.0, 1.0]) == Interval(0.5, 0.0, 1.0, 2)


def test_interval_is_near_the_normal_one_and_seeded():
    values = np.random.default_rng(0).normal(5, 2, 400).tolist()
    interval = bootstrap_mean(values, seed=1)
    half = 1.96 * np.std(values) / 20
    assert interval.n == 400
    assert (interval.low, interval.high) == pytest.approx((interval.mean - half, interval.mean + half), abs=0.02)
    assert bootstrap_mean(values, seed=1) == interval
    assert bootstrap_mean(values, seed=2) != interval


def test_sessions_of_a_subject_are_drawn_together():
    rng = np.random.default_rng(0)
    per_subject = rng.normal(size=20)
    values, subjects = np.repeat(per_subject, 10).tolist(), np.repeat([f"p{i}" for i in range(20)], 10).tolist()
    grouped, alone = bootstrap_mean(values, subjects), bootstrap_mean(values)
    assert (grouped.n, alone.n) == (20, 200)
    # Ten copies of each subject say nothing new: the interval is that of twenty values.
    assert grouped.mean == pytest.approx(per_subject.mean())
    assert (grouped.high - grouped.low) / (alone.high - alone.low) == pytest.approx(np.sqrt(10), rel=0.1)


def arm(values):
    return {f"p{i:02}": value for i, value in enumerate(values)}


def test_a_constant_gain_differs():
    base = np.random.default_rng(0).random(10)
    comparison = compare_paired(arm(base + 0.1), arm(base))
    assert comparison.difference.mean == pytest.approx(0.1)
    assert comparison.difference.n == 10
    assert comparison.differs
    assert comparison.p_value == pytest.approx(2 / 2**10)


def test_noise_does_not_differ():
    rng = np.random.default_rng(3)
    noise = rng.normal(size=30)
    comparison = compare_paired(arm(noise - noise.mean()), arm(np.zeros(30)))
    assert not comparison.differs
    assert comparison.p_value > 0.05


def test_pairs_are_matched_by_name_not_order():
    first = {"a": 1.0, "b": 2.0}
    assert compare_paired(first, {"b": 2.0, "a": 1.0}).difference == Interval(0, 0, 0, 2)


def test_too_few_pairs_have_no_p_value():
    assert compare_paired(arm([0.2] * 5), arm([0.1] * 5)).p_value is None
    assert compare_paired(arm([0.2] * 6), arm([0.1] * 6)).p_value == pytest.approx(2 / 2**6)
    same = compare_paired(arm([0.2] * 9), arm([0.2] * 9))
    assert (same.p_value, same.differs, same.difference.n) == (None, False, 9)
    alone = compare_paired({"a": 0.3}, {"a": 0.1})
    assert (alone.difference.n, alone.p_value) == (1, None)


def test_errors_say_what_to_mend():
    with pytest.raises(DataError, match=r"b: is in one arm only \(1 such"):
        compare_paired({"a": 1.0, "b": 1.0}, {"a": 1.0})
    with pytest.raises(DataError, match="at least one value"):
        bootstrap_mean([])
    with pytest.raises(DataError, match="1 of 2 are not finite"):
        bootstrap_mean([1.0, float("nan")])
    with pytest.raises(DataError, match="1 names for 2 values"):
        bootstrap_mean([1.0, 2.0], ["a"])

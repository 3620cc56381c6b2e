import numpy as np
import pytest

from ganseg_dist.errors import FederationError
from server.aggregation import mean_scores, site_weights


def test_site_weights_are_proportional_to_examples():
    assert site_weights({"a": 1, "b": 2, "c": 5}, largest_share=1.0) == {
        "a": pytest.approx(0.125),
        "b": pytest.approx(0.25),
        "c": pytest.approx(0.625),
    }


def test_site_weights_redistribute_capped_share_in_proportion():
    # c has 0.7 of the examples; the half that it may not have is shared 1 to 2.
    assert site_weights({"c": 7, "a": 1, "b": 2}, largest_share=0.4) == {
        "c": pytest.approx(0.4),
        "a": pytest.approx(0.2),
        "b": pytest.approx(0.4),
    }


def test_site_weights_cap_site_lifted_by_redistribution():
    # Alone, only a is above 0.35; what it gives up lifts b from 0.3 to 0.39, so b is cut as well.
    weights = site_weights({"a": 50, "b": 30, "c": 15, "d": 5}, largest_share=0.35)
    assert weights == {
        "a": pytest.approx(0.35),
        "b": pytest.approx(0.35),
        "c": pytest.approx(0.225),
        "d": pytest.approx(0.075),
    }


@pytest.mark.parametrize("examples", [3.0, 49.0, 1e7])
def test_site_weights_are_exactly_one_for_single_site(examples):
    assert site_weights({"a": examples}, largest_share=0.1) == {"a": 1.0}


def test_site_weights_are_equal_when_cap_is_below_equal_share():
    assert site_weights({"a": 900, "b": 90, "c": 10}, largest_share=0.01) == pytest.approx(
        {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}
    )


def test_site_weights_do_not_depend_on_order():
    # a and e have as many examples; computed in the order given, their shares would differ in the last bit.
    examples = {"a": 6.0, "b": 8.0, "c": 9.0, "d": 2.0, "e": 6.0}
    weights = site_weights(examples, largest_share=0.5)
    rng = np.random.default_rng(0)
    for _ in range(20):
        instruction = [str(site) for site in rng.permutation(list(examples))]
        again = site_weights({site: examples[site] for site in instruction}, largest_share=0.5)
        assert list(again) == instruction
        assert again == weights


@pytest.mark.parametrize("seed", range(50))
def test_site_weights_satisfy_definition_for_random_sites(seed):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 12))
    examples = {f"s{number}": float(rng.integers(1, 10 ** int(rng.integers(1, 8)))) for number in range(count)}
    largest_share = float(rng.uniform(0.01, 1))
    weights = site_weights(examples, largest_share)
    cap = max(largest_share, 1 / count)

    assert sum(weights.values()) == pytest.approx(1, abs=1e-12)
    assert max(weights.values()) <= cap
    # The definition: w_i = min(cap, lambda * e_i) with one lambda for all.
    free = [site for site in examples if weights[site] < cap * (1 - 1e-9)]
    if free:
        scale = weights[free[0]] / examples[free[0]]
        for site in examples:
            assert weights[site] == pytest.approx(min(cap, scale * examples[site]), rel=1e-9)


def test_site_weights_give_site_without_examples_no_share():
    assert site_weights({"a": 0, "b": 30, "c": 0, "d": 10}, largest_share=1.0) == {"a": 0, "b": 0.75, "c": 0, "d": 0.25}
    assert site_weights({"a": 5, "b": 0}, largest_share=0.5) == {"a": 1.0, "b": 0.0}


def test_site_weights_raise_where_no_site_has_examples():
    with pytest.raises(FederationError, match="no site has anything to train on"):
        site_weights({"a": 0, "b": 0}, largest_share=0.5)


SCORES = {"a": {"dice": 0.5}, "b": {"dice": 0.6}, "x": {"dice": 1.0}}


def test_mean_scores_cap_share_of_one_site():
    means = mean_scores(SCORES, {"a": 10, "b": 10, "x": 10**7}, 0.5, alone=False)
    assert means == {"dice": pytest.approx(0.5 * 1.0 + 0.25 * (0.5 + 0.6))}


def test_mean_scores_are_weighted_by_cases():
    assert mean_scores(SCORES, {"a": 1, "b": 2, "x": 1}, 0.5, alone=False)["dice"] == pytest.approx(0.675)


def test_mean_scores_leave_out_score_of_one_site_among_several():
    scores = {"a": {"dice": 0.5}, "b": {"dice": 0.6}, "x": {"dice": 0.7, "hd95": 0.0}}
    assert set(mean_scores(scores, dict.fromkeys("abx", 3), 0.5, alone=False)) == {"dice"}
    assert mean_scores({"x": {"dice": 0.7}, "a": {}}, dict.fromkeys("ax", 3), 0.5, alone=False) == {}
    assert mean_scores({"x": {"dice": 0.7}}, {"x": 3}, 0.5, alone=True) == {"dice": 0.7}


def test_mean_scores_ignore_site_without_cases():
    assert mean_scores(SCORES, {"a": 3, "b": 3, "x": 0}, 0.5, alone=False)["dice"] == pytest.approx(0.55)
    assert mean_scores({}, {}, 0.5, alone=True) == {}

import pytest
import torch
from torch import nn

from ganseg_dist.engine.balance import GradientBalance
from ganseg_dist.engine.world import World
from ganseg_dist.systems.base import Balance

BASE = {"reference": 1.0, "term": 0.1}


@pytest.fixture
def networks():
    network = nn.Module()
    network.head = nn.Linear(2, 1, bias=False)
    return {"segmenter": network}


def terms(networks, reference, term):
    """Two terms whose gradients at the shared weight are these two vectors."""
    weight = networks["segmenter"].head.weight[0]
    return {"reference": weight @ torch.tensor(reference), "term": weight @ torch.tensor(term)}


def balance(**changes):
    return GradientBalance(Balance("segmenter.head.weight", "reference", **changes))


def test_the_ratio_brings_a_term_to_its_share_of_the_references_gradient(networks):
    made = balance()
    made.read(terms(networks, [3.0, 4.0], [0.0, 20.0]), networks, World())
    assert made.norms == pytest.approx({"reference": 5, "term": 20})
    assert made.weights(BASE) == pytest.approx({"reference": 1.0, "term": 0.1 * 5 / 20})


def test_the_reference_keeps_its_own_weight(networks):
    made = balance()
    made.read(terms(networks, [3.0, 4.0], [0.0, 20.0]), networks, World())
    assert made.weights({"reference": 0.7, "term": 0.1})["reference"] == 0.7


@pytest.mark.parametrize(("term", "factor"), [([0.0, 5e5], 1e-2), ([0.0, 5e-5], 1e2), ([0.0, 0.0], 1e2)])
def test_the_ratio_is_clipped_also_where_a_gradient_vanishes(networks, term, factor):
    made = balance(clip=(1e-2, 1e2))
    made.read(terms(networks, [3.0, 4.0], term), networks, World())
    assert made.weights(BASE)["term"] == pytest.approx(0.1 * factor)


def test_a_term_that_does_not_reach_the_shared_parameter_has_no_gradient(networks):
    made = balance()
    alone = nn.Parameter(torch.ones(1))
    made.read({**terms(networks, [3.0, 4.0], [0.0, 1.0]), "term": alone.sum()}, networks, World())
    assert made.norms["term"] == 0


def test_the_inverse_rule_is_equation_10_as_printed(networks):
    """w_i cancels, and so does any clip: every weight is one over the norm."""
    made = balance(rule="inverse")
    made.read(terms(networks, [3.0, 4.0], [0.0, 20.0]), networks, World())
    assert made.weights(BASE) == pytest.approx({"reference": 1 / 5, "term": 1 / 20})
    assert made.weights({"reference": 9.0, "term": 9.0}) == made.weights(BASE)


def test_norms_are_a_running_average_that_starts_at_the_first_reading(networks):
    made = balance(decay=0.9)
    made.read(terms(networks, [5.0, 0.0], [0.0, 10.0]), networks, World())
    made.read(terms(networks, [1.0, 0.0], [0.0, 30.0]), networks, World())
    assert made.norms == pytest.approx({"reference": 0.9 * 5 + 0.1 * 1, "term": 0.9 * 10 + 0.1 * 30})


def test_reading_leaves_no_gradient_behind_and_the_graph_usable(networks):
    both = terms(networks, [3.0, 4.0], [0.0, 20.0])
    balance().read(both, networks, World())
    weight = networks["segmenter"].head.weight
    assert weight.grad is None
    sum(both.values()).backward()
    assert weight.grad[0].tolist() == [3, 24]

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


def test_gradient_balance_scales_term_to_reference_gradient(networks):
    balancer = balance()
    balancer.read(terms(networks, [3.0, 4.0], [0.0, 20.0]), networks, World())
    assert balancer.norms == pytest.approx({"reference": 5, "term": 20})
    assert balancer.weights(BASE) == pytest.approx({"reference": 1.0, "term": 0.1 * 5 / 20})


def test_gradient_balance_keeps_reference_weight(networks):
    balancer = balance()
    balancer.read(terms(networks, [3.0, 4.0], [0.0, 20.0]), networks, World())
    assert balancer.weights({"reference": 0.7, "term": 0.1})["reference"] == 0.7


@pytest.mark.parametrize(("term", "factor"), [([0.0, 5e5], 1e-2), ([0.0, 5e-5], 1e2), ([0.0, 0.0], 1e2)])
def test_gradient_balance_clips_ratio_even_for_zero_gradient(networks, term, factor):
    balancer = balance(clip=(1e-2, 1e2))
    balancer.read(terms(networks, [3.0, 4.0], term), networks, World())
    assert balancer.weights(BASE)["term"] == pytest.approx(0.1 * factor)


def test_gradient_balance_norm_is_zero_for_unconnected_term(networks):
    balancer = balance()
    alone = nn.Parameter(torch.ones(1))
    balancer.read({**terms(networks, [3.0, 4.0], [0.0, 1.0]), "term": alone.sum()}, networks, World())
    assert balancer.norms["term"] == 0


def test_gradient_balance_inverse_rule_is_equation_10(networks):
    """w_i cancels, and so does any clip: every weight is one over the norm."""
    balancer = balance(rule="inverse")
    balancer.read(terms(networks, [3.0, 4.0], [0.0, 20.0]), networks, World())
    assert balancer.weights(BASE) == pytest.approx({"reference": 1 / 5, "term": 1 / 20})
    assert balancer.weights({"reference": 9.0, "term": 9.0}) == balancer.weights(BASE)


def test_gradient_balance_norms_are_running_averages(networks):
    balancer = balance(decay=0.9)
    balancer.read(terms(networks, [5.0, 0.0], [0.0, 10.0]), networks, World())
    balancer.read(terms(networks, [1.0, 0.0], [0.0, 30.0]), networks, World())
    assert balancer.norms == pytest.approx({"reference": 0.9 * 5 + 0.1 * 1, "term": 0.9 * 10 + 0.1 * 30})


def test_gradient_balance_read_leaves_no_gradient_and_keeps_graph(networks):
    both = terms(networks, [3.0, 4.0], [0.0, 20.0])
    balance().read(both, networks, World())
    weight = networks["segmenter"].head.weight
    assert weight.grad is None
    sum(both.values()).backward()
    assert weight.grad[0].tolist() == [3, 24]

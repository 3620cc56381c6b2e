"""The model of a step's time, against numbers computed by hand."""

import pytest

from benchmarks.scaling_model import Compute, Link, Step, fitted_line

LINK = Link(bandwidth=100.0, latency=1.0)


@pytest.mark.parametrize(
    ("workers", "seconds"),
    [
        (1, 0.0),
        (2, 2.0 + 3.0),  # a round there and a round back; 2 * 1/2 of 300 bytes
        (4, 4.0 + 4.5),  # two rounds each way; 2 * 3/4
        (5, 6.0 + 4.8),  # as many rounds as eight need; 2 * 4/5
    ],
)
def test_allreduce_time_sums_latency_and_bandwidth_terms(workers, seconds):
    assert LINK.allreduce(workers, 300) == pytest.approx(seconds)


def test_step_without_loaders_sums_compute_network_and_reading():
    step = Step(Compute(per_example=2.0, fixed=1.0), (100.0, 300.0), LINK, reading=4.0)
    assert step.parts(2, 8) == pytest.approx({"compute": 9.0, "network": (2 + 1) + (2 + 3), "reading": 1.0})
    assert step.seconds(2, 8) == pytest.approx(18.0)
    assert step.seconds(1, 8) == pytest.approx(17.0 + 2.0)
    assert step.speedup(2, 8) == pytest.approx(19 / 18)
    assert step.speedup(2, 8, weak=True) == pytest.approx(2 * 19 / (17 + 8 + 2))
    assert step.limit(2, 8) == "compute"


def test_step_with_loaders_waits_only_for_slower_reading():
    slow, fast = (Step(Compute(1.0), (), LINK, reading=rate, loaders=2) for rate in (0.25, 4.0))
    assert (slow.seconds(1, 8), slow.limit(1, 8)) == (16.0, "reading")
    assert (fast.seconds(1, 8), fast.limit(1, 8)) == (8.0, "compute")


def test_step_speedup_is_limited_by_compute_floor():
    step = Step(Compute(per_example=1.0, floor=4.0), (), Link(1.0, 0.0), reading=1e9)
    assert step.speedup(2, 8) == pytest.approx(2.0)
    assert step.speedup(8, 8) == pytest.approx(2.0)
    assert step.limit(8, 8) == "floor"
    assert step.speedup(8, 8, weak=True) == pytest.approx(8.0)


def test_step_speedup_is_limited_by_slow_network():
    step = Step(Compute(1.0), (10_000.0,), LINK, reading=1e9)
    assert step.limit(2, 8) == "network"
    assert step.speedup(2, 8) < 1


def test_fitted_line_recovers_a_line_and_has_no_negative_intercept():
    assert fitted_line({1: 5.0, 10: 23.0, 100: 203.0}) == pytest.approx((3.0, 2.0))
    assert fitted_line({1: 1.0, 2: 3.0}) == pytest.approx((0.0, (1 + 2 / 3) / (1 + 4 / 9)))


def test_messages_of_step_are_gradient_bytes_of_trained_networks():
    from benchmarks.scaling import messages_of, settled, stage_of
    from ganseg_dist.systems import build_system

    config = settled("gan_osmosis_debug")
    system = build_system(config)
    weights = {name: sum(p.numel() for p in network.parameters()) for name, network in system.networks.items()}
    assert messages_of(system, stage_of(system, config).phases) == (
        4 * weights["discriminator"],
        4 * weights["generator"],
    )

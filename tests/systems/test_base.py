import pytest

from ganseg_dist.systems.base import Monitor, Phase, Stage


def test_a_phase_is_due_every_so_many_batches():
    phase = Phase("discriminator", ("d",), {"d": 1.0}, every=5)
    assert [batch for batch in range(12) if phase.due(0, batch)] == [0, 5, 10]


def test_a_phase_keeps_to_its_epochs():
    phase = Phase("adversarial", ("s",), {"s": 1.0}, epochs=range(2, 4))
    assert [epoch for epoch in range(6) if phase.due(epoch, 0)] == [2, 3]
    assert all(Phase("supervised", ("s",), {"s": 1.0}).due(epoch, 3) for epoch in range(5))


def test_a_stage_trains_each_network_once():
    phases = (Phase("one", ("b", "a"), {}), Phase("two", ("a", "c"), {}))
    stage = Stage("stage", phases, epochs=1, learning_rate=1, scores=(), monitor=Monitor(("x",), "max"))
    assert stage.networks == ("b", "a", "c")


@pytest.mark.parametrize(("mode", "better", "worse"), [("max", 0.6, 0.4), ("min", 0.4, 0.6)])
def test_a_monitor_compares_its_way_and_a_tie_is_no_improvement(mode, better, worse):
    monitor = Monitor(("x",), mode)
    assert monitor.better(better, 0.5)
    assert not monitor.better(worse, 0.5)
    assert not monitor.better(0.5, 0.5)
    assert monitor.better(worse, None)


def test_a_monitor_watches_the_mean_of_its_scores():
    assert Monitor(("a", "b"), "max").value({"a": 0.2, "b": 0.6, "c": 9.0}) == pytest.approx(0.4)


def test_a_monitor_passes_over_scores_that_no_case_counts_in():
    assert Monitor(("a", "b"), "max").value({"a": 0.2}) == pytest.approx(0.2)
    assert Monitor(("a", "b"), "max").value({"c": 1.0}) is None


def test_the_best_epoch_is_the_first_of_the_best_since_it_may_be():
    by_epoch = dict(enumerate([{"x": 0.9}, {"x": 0.4}, {}, {"x": 0.6}, {"x": 0.6}, {"x": 0.5}]))
    assert Monitor(("x",), "max", since=1).best_epoch(by_epoch) == 3
    assert Monitor(("x",), "min").best_epoch(by_epoch) == 1
    assert Monitor((), "max").best_epoch(by_epoch) is None
    assert Monitor(("y",), "max").best_epoch(by_epoch) is None


def test_the_best_epoch_is_found_where_not_every_epoch_was_scored():
    by_epoch = {3: {"x": 0.9}, 7: {"x": 0.4}, 11: {"x": 0.6}}
    assert Monitor(("x",), "max").best_epoch(by_epoch) == 3
    assert Monitor(("x",), "max", since=5).best_epoch(by_epoch) == 11

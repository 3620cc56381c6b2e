import pytest

from ganseg_dist.errors import ConfigError
from ganseg_dist.systems.base import Monitor, Phase, Stage


def test_phase_is_due_at_its_interval():
    phase = Phase("discriminator", ("d",), {"d": 1.0}, every=5)
    assert [batch for batch in range(12) if phase.due(0, batch)] == [0, 5, 10]


def test_phase_is_due_in_its_epochs_only():
    phase = Phase("adversarial", ("s",), {"s": 1.0}, epochs=range(2, 4))
    assert [epoch for epoch in range(6) if phase.due(epoch, 0)] == [2, 3]
    assert all(Phase("supervised", ("s",), {"s": 1.0}).due(epoch, 3) for epoch in range(5))


def test_stage_networks_are_unique_in_order():
    phases = (Phase("one", ("b", "a"), {}), Phase("two", ("a", "c"), {}))
    stage = Stage("stage", phases, epochs=1, learning_rate=1, scores=(), monitor=Monitor(("dice",)))
    assert stage.networks == ("b", "a", "c")


@pytest.mark.parametrize(("score", "better", "worse"), [("dice", 0.6, 0.4), ("hole_l1", 0.4, 0.6)])
def test_monitor_better_follows_score_direction_and_rejects_ties(score, better, worse):
    monitor = Monitor((score,))
    assert monitor.better(better, 0.5)
    assert not monitor.better(worse, 0.5)
    assert not monitor.better(0.5, 0.5)
    assert monitor.better(worse, None)


def test_monitor_value_is_mean_of_its_scores():
    assert Monitor(("dice_wt", "dice_tc")).value({"dice_wt": 0.2, "dice_tc": 0.6, "iou_wt": 9.0}) == pytest.approx(0.4)


def test_monitor_value_skips_missing_scores():
    assert Monitor(("dice_wt", "dice_tc")).value({"dice_wt": 0.2}) == pytest.approx(0.2)
    assert Monitor(("dice_wt", "dice_tc")).value({"iou_wt": 1.0}) is None


def test_monitor_best_epoch_is_first_of_best_since_start():
    by_epoch = dict(enumerate([{"dice": 0.9}, {"dice": 0.4}, {}, {"dice": 0.6}, {"dice": 0.6}, {"dice": 0.5}]))
    assert Monitor(("dice",), since=1).best_epoch(by_epoch) == 3
    assert Monitor(()).best_epoch(by_epoch) is None
    assert Monitor(("iou",)).best_epoch(by_epoch) is None


def test_monitor_best_epoch_of_loss_is_smallest():
    by_epoch = dict(enumerate([{"hole_l1": 0.9}, {"hole_l1": 0.4}, {}, {"hole_l1": 0.6}]))
    assert Monitor(("hole_l1",)).best_epoch(by_epoch) == 1


@pytest.mark.parametrize(
    ("scores", "problem"),
    [
        (("dcie_wt",), r"dcie_wt: is no score; did you mean dice"),
        (("dice_wt", "cross_entropy"), "some are better large, others small"),
        (("lesions_true_wt",), "lesions_true_wt: is better neither large nor small"),
    ],
)
def test_monitor_rejects_incompatible_scores(scores, problem):
    with pytest.raises(ConfigError, match=problem):
        Monitor(scores)


def test_stage_rejects_unknown_score():
    with pytest.raises(ConfigError, match=r"dcie: is no score"):
        Stage("stage", (), epochs=1, learning_rate=1, scores=("dcie",), monitor=Monitor(()))


def test_monitor_best_epoch_accepts_sparse_epochs():
    by_epoch = {3: {"dice": 0.9}, 7: {"dice": 0.4}, 11: {"dice": 0.6}}
    assert Monitor(("dice",)).best_epoch(by_epoch) == 3
    assert Monitor(("dice",), since=5).best_epoch(by_epoch) == 11

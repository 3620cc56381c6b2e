from ganseg_dist.engine.state import Epoch
from ganseg_dist.federation.record import RoundRecord
from ganseg_dist.plots.lines import Span
from ganseg_dist.report.training import _terms, phase_spans, stage_curves
from ganseg_dist.runs import Kept


def epoch(number, losses, scores=None, stage="segment"):
    return Epoch(stage=stage, epoch=number, step=0, workers=1, losses=losses, scores=scores or {})


TURNS = [
    epoch(0, {"supervised/segmentation": 3.0}, {"dice_wt": 0.1, "dice_tc": 0.3}),
    epoch(1, {"supervised/segmentation": 2.0}, {"dice_wt": 0.6, "dice_tc": 0.4}),
    epoch(
        2,
        {"adversarial/segmentation": 1.0, "adversarial/size": 0.5, "adversarial/weight_size": 0.1},
        {"dice_wt": 0.5, "dice_tc": 0.4},
    ),
]


def test_phase_spans_and_terms_join_alternating_phases():
    assert phase_spans(TURNS) == [Span(1, 2, "supervised"), Span(3, 3, "adversarial")]
    assert _terms(TURNS, weights=False) == {"segmentation": [(1, 3.0), (2, 2.0), (3, 1.0)], "size": [(3, 0.5)]}
    assert _terms(TURNS, weights=True) == {"size": [(3, 0.1)]}


def test_terms_of_simultaneous_phases_stay_separate():
    both = [epoch(0, {"generator/adversarial": 1.0, "discriminator/adversarial": 2.0})]
    assert phase_spans(both) == []
    assert _terms(both, weights=False) == {
        "generator: adversarial": [(1, 1.0)],
        "discriminator: adversarial": [(1, 2.0)],
    }


def test_stage_curves_follow_training_order():
    history = [epoch(0, {"generator/hole_l1": 0.2}, {"hole_l1": 0.3}, stage="healthy"), *TURNS]
    curves = stage_curves(history, str.upper, {"segment": Kept(epoch=1, best_of=("dice_wt", "dice_tc"))})
    assert [(stage.name, stage.epochs, [chart.title for chart in stage.charts]) for stage in curves] == [
        ("healthy", 1, ["Losses", "L1 in the holes in validation"]),
        ("segment", 3, ["Losses", "Dice in validation", "Dynamic weights"]),
    ]
    assert curves[0].charts[1].caption == "L1 in the holes on the validation part; lower is better."
    assert curves[1].charts[1].caption.endswith("Dotted: epoch 2, the best mean Dice, which is kept.")


def test_stage_curves_of_federation_count_rounds_and_epochs():
    history = [
        epoch(1, {"generator/hole_l1": 0.2}, {"hole_l1": 0.3}, stage="healthy"),
        epoch(0, {"supervised/segmentation": 2.0}, {"dice_wt": 0.1}),
        epoch(2, {"adversarial/segmentation": 1.0, "adversarial/weight_size": 0.1}, {"dice_wt": 0.5}),
    ]
    rounds = [
        RoundRecord(round=number, stage=stage, first=first, until=until, sites={})
        for number, stage, first, until in ((1, "healthy", 0, 2), (2, "segment", 0, 1), (3, "segment", 1, 3))
    ]
    kept = {"healthy": Kept(epoch=1, best_of=("hole_l1",)), "segment": Kept(epoch=2, best_of=("dice_wt",))}
    healthy, segment = stage_curves(history, str.upper, kept, rounds)
    assert [(stage.rounds, stage.epochs) for stage in (healthy, segment)] == [(1, 2), (2, 3)]
    assert healthy.charts[1].caption.endswith(
        "Dotted: epoch 2, the end of round 1, the best L1 in the holes, which is kept."
    )
    assert segment.charts[1].caption.endswith("Dotted: epoch 3, the end of round 3, the best Dice, which is kept.")
    assert (
        segment.charts[0].caption == "Mean over the sites and the steps of each round's last epoch, before weighting."
    )
    assert phase_spans(history[1:]) == [Span(1, 1, "supervised"), Span(2, 3, "adversarial")]
    assert [stage.rounds for stage in stage_curves(history, str.upper, kept)] == [0, 0]
    assert [stage.epochs for stage in stage_curves(history, str.upper, kept)] == [2, 3], "whatever was recorded of them"


def test_stage_curves_have_chart_per_score_and_mark_kept_epoch():
    scores = [{"accuracy": 0.9, "cross_entropy": 0.8}, {"accuracy": 0.5, "cross_entropy": 0.2}]
    history = [epoch(number, {"c/l": 1.0}, each, stage="classify") for number, each in enumerate(scores)]
    (classify,) = stage_curves(history, str.upper, {"classify": Kept(epoch=1, best_of=("cross_entropy",))})
    assert [chart.title for chart in classify.charts] == [
        "Losses",
        "Accuracy in validation",
        "Cross-entropy in validation",
    ]
    assert all("Dotted: epoch 2, the best cross-entropy" in chart.caption for chart in classify.charts[1:])
    assert ["higher" in classify.charts[1].caption, "lower" in classify.charts[2].caption] == [True, True]


def test_stage_curves_state_that_last_epoch_is_kept():
    scores = [{"dice_wt": 0.9, "dice_tc": 0.8, "l1": 0.3}, {"dice_wt": 0.5, "dice_tc": 0.4, "l1": 0.2}]
    history = [epoch(number, {"g/l": 1.0}, each, stage="joint") for number, each in enumerate(scores)]
    (joint,) = stage_curves(history, str.upper, {"joint": Kept(epoch=1, best_of=())})
    assert [chart.title for chart in joint.charts] == [
        "Losses",
        "Dice in validation",
        "L1 to the real one in validation",
    ]
    for chart in joint.charts[1:]:
        assert chart.caption.endswith("is better. The last epoch is kept.")
        assert "Dotted" not in chart.caption
    assert "lower" in joint.charts[2].caption

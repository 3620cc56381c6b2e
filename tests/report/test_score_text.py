import pytest

from ganseg_dist.metrics.statistics import Interval
from ganseg_dist.report import score_text


@pytest.mark.parametrize(
    ("value", "score", "shown"),
    [(0.81234, "wt/dice", "0.812"), (9.41, "wt/hd95_mm", "9.4"), (-0.0001, "dice", "0.000"), (-0.02, "dice", "−0.020"),
     (None, "dice", "–"), (float("nan"), "dice", "–")],
)  # fmt: skip
def test_number_rounds_by_score(value, score, shown):
    assert score_text.number(value, score) == shown


@pytest.mark.parametrize(
    ("score", "arrow"),
    [("wt/dice", "↑"), ("wt/hd95_px", "↓"), ("hole_l1", "↓"), ("et/lesions_missed", "↓"), ("et/lesions_true", "")],
)
def test_direction_points_to_better_values(score, arrow):
    assert score_text.direction(score) == arrow


def test_labels_name_scores_regions_and_modalities():
    assert score_text.score_label("wt/hd95_mm") == "HD95, mm"
    assert score_text.score_label("dice_et") == "Dice"
    assert score_text.region_label("wt", ["wt"], ["t1", "flair"]) == "Tumour"
    assert score_text.region_label("wt", ["wt", "tc"], ["t1"]) == "Whole tumour"
    assert {score_text.region_label("wt", ["wt"], of) for of in (["grey"], ["red", "green", "blue"])} == {"Foreground"}
    assert score_text.region_label("wt", ["wt"], []) == "Tumour", "of which nothing is known"
    assert [
        score_text.lesion_free(regions, of)
        for regions, of in ((["wt"], ["t1"]), (["wt", "tc"], ["t1"]), (["wt"], ["red", "green", "blue"]))
    ] == ["tumour-free", "tumour-free", "foreground-free"]
    assert [score_text.modality_label(name) for name in ("t1ce", "flair", "red")] == ["T1ce", "FLAIR", "red"]


def test_between_is_dash_for_degenerate_interval():
    one, two = (Interval(mean=0.5, low=0.5, high=0.5, n=n) for n in (1, 2))
    assert (score_text.between(one), score_text.between(two)) == ("–", "–")
    assert score_text.interval_text(one) == "95% –, n = 1"
    assert score_text.between(Interval(mean=0.1, low=-0.2, high=0.4, n=9), signed=True) == "−0.200 to +0.400"


def test_score_in_words_names_score_and_region():
    assert score_text.score_in_words("wt/dice", "Whole tumour") == "Dice of the whole tumour"
    assert score_text.score_in_words("wt/iou", "Foreground") == "IoU of the foreground"
    assert score_text.score_in_words("auroc", "") == "AUROC"
    assert [score_text.in_a_sentence(name) for name in ("Dice", "IoU", "Youden's J", "Accuracy", "HD95, mm")] == [
        "Dice", "IoU", "Youden's J", "accuracy", "HD95, mm",
    ]  # fmt: skip


def test_p_value_joined_and_moment_format_values():
    assert [score_text.p_value(p) for p in (None, 0.0002, 0.0412)] == ["–", "< 0.001", "0.041"]
    assert [score_text.joined(names) for names in (["a"], ["a", "b", "c"])] == ["a", "a, b and c"]
    assert score_text.moment("2026-11-21T12:40:11+0000") == "2026-11-21 12:40 UTC"
    assert score_text.moment("yesterday") == "yesterday"

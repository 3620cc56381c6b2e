import pytest

from ganseg_dist.metrics.statistics import Interval
from ganseg_dist.report import labels


@pytest.mark.parametrize(
    ("value", "score", "shown"),
    [(0.81234, "wt/dice", "0.812"), (9.41, "wt/hd95_mm", "9.4"), (-0.0001, "dice", "0.000"), (-0.02, "dice", "−0.020"),
     (None, "dice", "–"), (float("nan"), "dice", "–")],
)  # fmt: skip
def test_number_rounds_by_score(value, score, shown):
    assert labels.number(value, score) == shown


@pytest.mark.parametrize(
    ("score", "arrow"),
    [("wt/dice", "↑"), ("wt/hd95_px", "↓"), ("hole_l1", "↓"), ("et/lesions_missed", "↓"), ("et/lesions_true", "")],
)
def test_direction_points_to_better_values(score, arrow):
    assert labels.direction(score) == arrow


def test_labels_name_scores_regions_and_modalities():
    assert labels.score_label("wt/hd95_mm") == "HD95, mm"
    assert labels.score_label("dice_et") == "Dice"
    assert labels.region_label("wt", ["wt"], ["t1", "flair"]) == "Tumour"
    assert labels.region_label("wt", ["wt", "tc"], ["t1"]) == "Whole tumour"
    assert {labels.region_label("wt", ["wt"], of) for of in (["grey"], ["red", "green", "blue"])} == {"Foreground"}
    assert labels.region_label("wt", ["wt"], []) == "Tumour", "of which nothing is known"
    assert [
        labels.lesion_free(regions, of)
        for regions, of in ((["wt"], ["t1"]), (["wt", "tc"], ["t1"]), (["wt"], ["red", "green", "blue"]))
    ] == ["tumour-free", "tumour-free", "foreground-free"]
    assert [labels.modality_label(name) for name in ("t1ce", "flair", "red")] == ["T1ce", "FLAIR", "red"]


def test_between_is_dash_for_degenerate_interval():
    one, two = (Interval(mean=0.5, low=0.5, high=0.5, n=n) for n in (1, 2))
    assert (labels.between(one), labels.between(two)) == ("–", "–")
    assert labels.interval_text(one) == "95% –, n = 1"
    assert labels.between(Interval(mean=0.1, low=-0.2, high=0.4, n=9), signed=True) == "−0.200 to +0.400"


def test_score_in_words_names_score_and_region():
    assert labels.score_in_words("wt/dice", "Whole tumour") == "Dice of the whole tumour"
    assert labels.score_in_words("wt/iou", "Foreground") == "IoU of the foreground"
    assert labels.score_in_words("auroc", "") == "AUROC"
    assert [labels.in_a_sentence(name) for name in ("Dice", "IoU", "Youden's J", "Accuracy", "HD95, mm")] == [
        "Dice", "IoU", "Youden's J", "accuracy", "HD95, mm",
    ]  # fmt: skip


def test_duration_p_value_joined_and_moment_format_values():
    assert [labels.duration(seconds) for seconds in (None, 12.4, 75, 4921)] == ["–", "12 s", "1 min 15 s", "1 h 22 min"]
    assert [labels.p_value(p) for p in (None, 0.0002, 0.0412)] == ["–", "< 0.001", "0.041"]
    assert [labels.joined(names) for names in (["a"], ["a", "b", "c"])] == ["a", "a, b and c"]
    assert labels.moment("2026-11-21T12:40:11+0000") == "2026-11-21 12:40 UTC"
    assert labels.moment("yesterday") == "yesterday"

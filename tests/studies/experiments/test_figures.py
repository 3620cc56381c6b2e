"""Figures of experiments, checked by their artists."""

import numpy as np
import pytest

from ganseg_dist.evaluation.results import CaseRow
from ganseg_dist.plots.comparisons import LEAST_SPAN
from ganseg_dist.plots.style import PAPER
from ganseg_dist.studies.experiments.figures import curves, intervals
from ganseg_dist.studies.experiments.measures import MeanOf
from ganseg_dist.studies.experiments.table import SHARED_TRAINING, tabulate
from ganseg_dist.studies.trial import TrialResult

DICE, IOU = MeanOf("wt/dice", region="Whole tumour"), MeanOf("wt/iou", region="Whole tumour")


def outcome(dice, first=0, **labels):
    rows = tuple(CaseRow(f"c{n}", f"p{n}", "x", {"wt/dice": d, "wt/iou": d / 2}) for n, d in enumerate(dice, first))
    return TrialResult("t", labels, 1.0, rows)


def arms(**dice):
    return [outcome(values, arm=arm, seed=0) for arm, values in dice.items()]


def written(figure):
    """Every visible text of a figure."""
    figure.draw_without_rendering()
    texts = [figure.get_suptitle()]
    texts += [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    for axes in figure.axes:
        texts += [axes.get_xlabel(), axes.get_ylabel(), axes.get_title(loc="right")]
        texts += [label.get_text() for label in axes.get_yticklabels() + axes.get_xticklabels()]
    return [text.replace("\n", " ") for text in texts if text]


def dots(axes, marker="o"):
    return [line for line in axes.lines if line.get_marker() == marker and len(line.get_xdata()) == 1]


SEVEN = np.linspace(0.5, 0.7, 7)


def test_intervals_figure_has_panel_per_score_and_difference():
    figure = intervals(tabulate(arms(none=SEVEN, gan=SEVEN + 0.1), [DICE, IOU]), "augmentation")
    assert [axes.get_xlabel().replace("\n", " ") for axes in figure.axes] == [
        "Dice of the whole tumour", "Dice of the whole tumour less none", "IoU of the whole tumour",
    ]  # fmt: skip
    result = written(figure)
    assert "augmentation Mean and 95% interval over 7 test patients" in result
    assert {
        "none",
        "GAN",
        "mean and 95% interval",
        "difference shown: its interval leaves 0 out, and sign flips agree",
    } <= set(result)
    assert not any("/" in text for text in result)
    (gap,) = dots(figure.axes[1])
    assert gap.get_xdata()[0] == pytest.approx(0.1)
    assert gap.get_markerfacecolor() == PAPER.series[0]


def test_intervals_figure_marks_difference_of_few_patients_as_hollow():
    figure = intervals(tabulate(arms(none=SEVEN[:5], gan=SEVEN[:5] + 0.1), [DICE]), "few")
    assert [dot.get_markerfacecolor() for dot in dots(figure.axes[1])] == ["white"]
    assert "no difference shown, or too few patients to compare" in written(figure)


@pytest.mark.parametrize("values", [[0.5] * 7, [0.0] * 7, [1.0] * 7])
def test_intervals_figure_keeps_minimum_span_for_equal_values(values):
    figure = intervals(tabulate(arms(none=values, gan=values), [DICE]), "equal")
    for axes in figure.axes:
        low, high = axes.get_xlim()
        assert high - low >= LEAST_SPAN
        assert all(low < dot.get_xdata()[0] < high for dot in dots(axes))


@pytest.mark.parametrize(("printed", "marker"), [(0.6, "D"), (0.99, ">"), (0.1, "<")])
def test_intervals_figure_keeps_limits_beside_published_value(printed, marker):
    measured = arms(none=SEVEN, gan=SEVEN)
    plain = intervals(tabulate(measured, [DICE]), "t").axes[0].get_xlim()
    figure = intervals(tabulate(measured, [DICE], {"gan": {"dice": printed}}, published_by="arm"), "t")
    (mark,) = dots(figure.axes[0], marker)
    assert mark.get_fillstyle() == "none"
    assert figure.axes[0].get_xlim() == pytest.approx(plain)
    assert any(text.startswith("published, of other images") for text in written(figure))


def test_intervals_figure_groups_sites_and_colours_arms():
    trials = [outcome(SEVEN, site=site, arm=arm) for site in ("Bergen", "Ulm") for arm in ("classical", "both")]
    figure = intervals(tabulate(trials, [DICE]), "transfer")
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["Bergen", "Ulm"]
    markers = dots(axes)
    assert [dot.get_color() for dot in markers] == [PAPER.series[0], PAPER.series[1]] * 2
    heights = [float(dot.get_ydata()[0]) for dot in markers]
    assert heights[2] - heights[1] > heights[1] - heights[0]
    assert {"classical", "both"} <= set(written(figure))


def test_intervals_figure_shows_folds_below_all_folds():
    trials = [outcome(SEVEN[3 * n : 3 * n + 3], first=3 * n, fold=n + 1) for n in range(2)]
    figure = intervals(tabulate(trials, [DICE]), "folds")
    whole, *folds = dots(figure.axes[0])
    assert (whole.get_color(), {fold.get_color() for fold in folds}) == (PAPER.series[0], {PAPER.muted})
    assert all(fold.get_markersize() < whole.get_markersize() for fold in folds)
    message = f"folds Mean and 95% interval over 6 test patients {SHARED_TRAINING}"
    assert {message, "all folds (n = 6)", "fold 1 (n = 3)", "all folds together", "a single fold"} <= set(
        written(figure)
    )


def test_curves_figure_labels_patients_and_notes_published_range():
    trials = [
        outcome(SEVEN - 0.1 + at / 1000, percentage=at, arm=arm, seed=0, patients=at // 10)
        for at in (10, 100) for arm in ("real", "both")
    ]  # fmt: skip
    published = {10: {"dice": 0.97}, 100: {"dice": 0.99}}
    figure = curves(tabulate(trials, [DICE], published, published_by="percentage"), "percentage", "fractions")
    result = written(figure)
    assert {"10% (1)", "100% (10)", "real", "both", "published: 0.97 to 0.99, beyond the axis"} <= set(result)
    assert "fractions Mean and 95% interval over 7 test patients" in result
    assert figure.axes[0].get_ylim()[1] < 0.97
    assert figure.axes[1].get_ylabel() == "Dice of the whole tumour less real"


def test_intervals_figure_counts_images_when_patients_are_unknown():
    images = [
        TrialResult("t", one.values, one.seconds, one.rows, patients_known=False) for one in arms(none=SEVEN, gan=SEVEN)
    ]
    assert "t Mean and 95% interval over 7 test images, patients unknown" in written(
        intervals(tabulate(images, [DICE]), "t")
    )


def test_intervals_figure_has_no_interval_for_one_patient():
    figure = intervals(tabulate(arms(none=[0.5], gan=[0.6]), [DICE]), "t")
    assert "t Mean of 1 test patient" in written(figure)
    assert not [line for line in figure.axes[0].lines if len(set(line.get_xdata())) == 2]

import pytest

from ganseg_dist.plots.lines import Span, _apart, elbow_chart, line_chart
from ganseg_dist.plots.save import svg
from tests.plots import texts


def test_line_chart_labels_lines_phases_and_epochs():
    lines = {"segmentation": [(1, 1.0), (2, 0.5), (3, 0.2)], "size": [(3, 0.3)]}
    spans = [Span(1, 2, "supervised"), Span(3, 3, "adversarial")]
    chart = line_chart(lines, spans=spans, marked=3)
    assert {"segmentation", "size", "supervised", "adversarial", "epoch", "1", "3"} <= set(texts(chart))
    assert 'aria-label="Losses"' in svg(chart, "Losses")


@pytest.mark.parametrize(("smallest", "ticks"), [(0.5, {"0.60", "0.75"}), (0.001, {"0.01", "0.1"})])
def test_line_chart_has_log_axis_for_wide_range(smallest, ticks):
    assert ticks <= set(texts(line_chart({"loss": [(1, 1.0), (2, smallest)]})))


def test_line_chart_keeps_minimum_span_and_plain_ticks():
    shown = texts(line_chart({"l1": [(1, 0.036121), (2, 0.036123), (3, 0.036122)]}))
    assert not any("e" in text and text[0].isdigit() for text in shown if text)
    levels = sorted(float(text) for text in shown if text and "." in text)
    assert levels[0] < 0.036 < levels[-1]
    assert levels[-1] - levels[0] > 0.002


def test_line_chart_has_linear_axis_for_shares():
    line = [(1, 0.01), (2, 0.9)]
    assert "0.1" in texts(line_chart({"dice": line}))
    assert {"0.0", "0.2"} <= set(texts(line_chart({"dice": line}, shares=True)))


def test_line_chart_has_linear_axis_for_zeros():
    assert "0.00" in texts(line_chart({"loss": [(1, 1.0), (2, 0.0)]}))


def test_elbow_chart_marks_chosen_number_of_clusters():
    points = [(1, 9.0), (2, 4.0), (3, 1.0)]
    assert "k = 2, chosen" in texts(elbow_chart(points, chosen=2))
    assert not any("chosen" in text for text in texts(elbow_chart(points)) if text)


@pytest.mark.parametrize(
    ("heights", "expected"),
    [
        ([0.2, 0.8], [0.2, 0.8]),
        ([0.5, 0.5], [0.5, 0.6]),
        ([0.95, 1.0, 1.0], [0.8, 0.9, 1.0]),
        ([-0.3, 0.0], [0.0, 0.1]),
    ],
)
def test_apart_separates_line_labels(heights, expected):
    assert _apart(heights, 0.1) == pytest.approx(expected)

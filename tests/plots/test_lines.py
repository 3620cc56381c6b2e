import pytest

from ganseg_dist.plots.lines import Span, _apart, elbow_chart, line_chart
from ganseg_dist.plots.save import svg
from tests.plots import texts


def test_a_line_chart_names_lines_phases_and_epochs():
    lines = {"segmentation": [(1, 1.0), (2, 0.5), (3, 0.2)], "size": [(3, 0.3)]}
    spans = [Span(1, 2, "supervised"), Span(3, 3, "adversarial")]
    chart = line_chart(lines, spans=spans, marked=3)
    assert {"segmentation", "size", "supervised", "adversarial", "epoch", "1", "3"} <= set(texts(chart))
    assert 'aria-label="Losses"' in svg(chart, "Losses")


@pytest.mark.parametrize(("smallest", "ticks"), [(0.5, {"0.60", "0.75"}), (0.001, {"0.01", "0.1"})])
def test_a_wide_range_gets_a_log_axis(smallest, ticks):
    assert ticks <= set(texts(line_chart({"loss": [(1, 1.0), (2, smallest)]})))


def test_what_hardly_changes_is_drawn_as_such_and_every_tick_tells_its_own_value():
    shown = texts(line_chart({"l1": [(1, 0.036121), (2, 0.036123), (3, 0.036122)]}))
    assert not any("e" in text and text[0].isdigit() for text in shown if text)
    levels = sorted(float(text) for text in shown if text and "." in text)
    assert levels[0] < 0.036 < levels[-1]
    assert levels[-1] - levels[0] > 0.002


def test_shares_are_never_drawn_by_their_logarithms():
    line = [(1, 0.01), (2, 0.9)]
    assert "0.1" in texts(line_chart({"dice": line}))
    assert {"0.0", "0.2"} <= set(texts(line_chart({"dice": line}, shares=True)))


def test_values_of_zero_keep_the_axis_linear():
    assert "0.00" in texts(line_chart({"loss": [(1, 1.0), (2, 0.0)]}))


def test_the_chosen_number_of_clusters_is_marked_where_it_is_known():
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
def test_names_at_the_lines_ends_do_not_touch(heights, expected):
    assert _apart(heights, 0.1) == pytest.approx(expected)

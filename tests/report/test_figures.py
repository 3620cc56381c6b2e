import re
import xml.etree.ElementTree as ET

import pytest

from ganseg_dist.report.figures import (
    Bar,
    Dot,
    Span,
    _apart,
    _in_two_lines,
    calibration_chart,
    elbow_chart,
    interval_chart,
    line_chart,
    roc_chart,
    strip_chart,
)


def texts(svg):
    return [element.text for element in ET.fromstring(svg).iter() if element.tag.endswith("text")]


def test_a_line_chart_names_lines_phases_and_epochs():
    lines = {"segmentation": [(1, 1.0), (2, 0.5), (3, 0.2)], "size": [(3, 0.3)]}
    spans = [Span(1, 2, "supervised"), Span(3, 3, "adversarial")]
    svg = line_chart(lines, description="Losses", spans=spans, marked=3)
    assert {"segmentation", "size", "supervised", "adversarial", "epoch", "1", "3"} <= set(texts(svg))
    assert 'aria-label="Losses"' in svg


@pytest.mark.parametrize(("smallest", "ticks"), [(0.5, {"0.60", "0.75"}), (0.001, {"0.01", "0.1"})])
def test_a_wide_range_gets_a_log_axis(smallest, ticks):
    assert ticks <= set(texts(line_chart({"loss": [(1, 1.0), (2, smallest)]}, description="Loss")))


def test_what_hardly_changes_is_drawn_as_such_and_every_tick_tells_its_own_value():
    shown = texts(line_chart({"l1": [(1, 0.036121), (2, 0.036123), (3, 0.036122)]}, description="L1"))
    assert not any("e" in text and text[0].isdigit() for text in shown if text)
    levels = sorted(float(text) for text in shown if text and "." in text)
    assert levels[0] < 0.036 < levels[-1]
    assert levels[-1] - levels[0] > 0.002


def test_shares_are_never_drawn_by_their_logarithms():
    line = [(1, 0.01), (2, 0.9)]
    assert "0.1" in texts(line_chart({"dice": line}, description="Dice"))
    assert {"0.0", "0.2"} <= set(texts(line_chart({"dice": line}, description="Dice", shares=True)))


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("FLAIR threshold", ["FLAIR threshold"]),
        ("gan_osmosis_small-lgg-2026-11-22-second", ["gan_osmosis_small-lgg-2026-11-", "22-second"]),
        ("x" * 70, ["x" * 30, "x" * 29 + "…"]),
    ],
)
def test_a_long_name_beside_a_row_takes_two_lines_and_leaves_the_rest_out(name, lines):
    assert _in_two_lines(name).splitlines() == lines
    svg = interval_chart([Bar(name, 0.5)], axis="Dice", limits=(0, 1), description="Dice")
    assert set(lines) <= set(texts(svg))


def test_values_of_zero_keep_the_axis_linear():
    assert "0.00" in texts(line_chart({"loss": [(1, 1.0), (2, 0.0)]}, description="Loss"))


def test_figures_take_their_colours_from_the_page_and_escape_their_words():
    bars = [Bar("<model> $a$", 0.8, 0.7, 0.9, emphasised=True), Bar("other", 0.5)]
    svg = interval_chart(bars, axis="Dice", limits=(0, 1), description='"5 < 6"')
    assert "var(--figure-accent)" in svg
    assert "#0100" not in svg
    assert "<model> $a$" in texts(svg)
    assert ET.fromstring(svg).attrib["aria-label"] == '"5 < 6"'


def test_equal_data_give_equal_figures_and_ids_of_two_figures_differ():
    def drawn(values):
        return strip_chart({"a": values}, axis="Dice", description="Cases")

    def ids(svg):
        return {element.attrib["id"] for element in ET.fromstring(svg).iter() if "id" in element.attrib}

    assert drawn([0.1, 0.2]) == drawn([0.1, 0.2])
    assert ids(drawn([0.1, 0.2]))
    assert not ids(drawn([0.1, 0.2])) & ids(drawn([0.1, 0.3]))


def test_a_roc_curve_marks_the_chosen_threshold():
    points = [(0.0, 0.0), (0.1, 0.8), (1.0, 1.0)]
    assert "chosen threshold" in texts(roc_chart(points, chosen=(0.1, 0.8), description="ROC"))
    assert "chosen threshold" not in texts(roc_chart(points, description="ROC"))


def test_a_dot_of_four_times_the_images_is_twice_as_wide_and_the_note_is_written():
    svg = calibration_chart([Dot(0.3, 0.2, 100), Dot(0.8, 0.7, 25)], note="ECE 0.1", description="Calibration")
    assert "ECE 0.1" in texts(svg)
    marks = re.findall(r'<path id="[^"]*" d="M 0 ([\d.]+) ', svg)
    large, small = sorted({float(radius) for radius in marks if float(radius) > 2}, reverse=True)
    assert large == pytest.approx(2 * small)


def test_the_chosen_number_of_clusters_is_marked_where_it_is_known():
    points = [(1, 9.0), (2, 4.0), (3, 1.0)]
    assert "k = 2, chosen" in texts(elbow_chart(points, chosen=2, description="Elbow"))
    assert not any("chosen" in text for text in texts(elbow_chart(points, description="Elbow")) if text)


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

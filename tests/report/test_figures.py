import io
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from ganseg_dist.report.figures import (
    Bar,
    Span,
    _apart,
    grey,
    heat,
    interval_chart,
    line_chart,
    outline_path,
    outlines,
    overlay_png,
    roc_chart,
    strip_chart,
)

SQUARE = np.zeros((8, 8), np.uint8)
SQUARE[2:5, 3:7] = 1


def texts(svg):
    return [element.text for element in ET.fromstring(svg).iter() if element.tag.endswith("text")]


def test_an_outline_runs_between_inside_and_outside_pixels():
    (contour,) = outlines(SQUARE)
    assert contour.min(axis=0).tolist() == [2.5, 1.5]
    assert contour.max(axis=0).tolist() == [6.5, 4.5]
    assert outline_path(SQUARE).startswith("M")
    assert outline_path(SQUARE).count("Z") == 1


def test_a_mask_at_the_border_has_a_closed_outline_and_an_empty_one_none():
    (contour,) = outlines(np.ones((4, 4), np.uint8))
    assert contour[0].tolist() == contour[-1].tolist()
    assert contour.min() == -0.5
    assert outlines(np.zeros((4, 4), np.uint8)) == []
    assert outline_path(np.zeros((4, 4), np.uint8)) == ""


def test_an_overlay_is_blue_where_the_truth_ends_and_orange_where_the_prediction_does():
    image = np.full((2, 8, 8), -1, np.float32)
    predicted = np.roll(SQUARE, 2, axis=0)[None]

    def colours(truth, prediction):
        picture = Image.open(io.BytesIO(overlay_png(image, truth, prediction, side=256))).convert("RGB")
        assert picture.size == (256, 256)
        red, _, blue = np.moveaxis(np.asarray(picture, int), -1, 0)
        return bool((blue > red + 60).any()), bool((red > blue + 60).any())

    assert colours(SQUARE[None], None) == (True, False)
    assert colours(None, predicted) == (False, True)
    assert colours(SQUARE[None], predicted) == (True, True)
    assert colours(None, None) == (False, False)


def test_grey_and_heat_keep_order_and_a_shared_window():
    plane = np.linspace(-1, 1, 64).reshape(8, 8)
    assert grey(plane)[0, 0] == 0
    assert grey(plane)[-1, -1] == 255
    assert grey(plane - 0.5, like=plane)[-1, -1] < 200
    brightness = heat(plane, -1, 1).sum(axis=-1, dtype=int).ravel()
    assert brightness[0] < brightness[32] < brightness[-1]


def test_a_line_chart_names_lines_phases_and_epochs():
    lines = {"segmentation": [(1, 1.0), (2, 0.5), (3, 0.2)], "size": [(3, 0.3)]}
    spans = [Span(1, 2, "supervised"), Span(3, 3, "adversarial")]
    svg = line_chart(lines, description="Losses", spans=spans, marked=3)
    assert {"segmentation", "size", "supervised", "adversarial", "epoch", "1", "3"} <= set(texts(svg))
    assert 'aria-label="Losses"' in svg


@pytest.mark.parametrize(("smallest", "ticks"), [(0.5, {"0.60", "0.75"}), (0.001, {"0.01", "0.1"})])
def test_a_wide_range_gets_a_log_axis(smallest, ticks):
    assert ticks <= set(texts(line_chart({"loss": [(1, 1.0), (2, smallest)]}, description="Loss")))


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

import re

import pytest

from ganseg_dist.plots.roc import Dot, calibration_chart, roc_chart
from ganseg_dist.plots.save import svg
from tests.plots import texts


def test_roc_chart_marks_chosen_threshold():
    points = [(0.0, 0.0), (0.1, 0.8), (1.0, 1.0)]
    assert "chosen threshold" in texts(roc_chart(points, chosen=(0.1, 0.8)))
    assert "chosen threshold" not in texts(roc_chart(points))


def test_calibration_chart_scales_dot_area_with_images():
    chart = calibration_chart([Dot(0.3, 0.2, 100), Dot(0.8, 0.7, 25)], note="ECE 0.1")
    assert "ECE 0.1" in texts(chart)
    marks = re.findall(r'<path id="[^"]*" d="M 0 ([\d.]+) ', svg(chart, "Calibration"))
    large, small = sorted({float(radius) for radius in marks if float(radius) > 2}, reverse=True)
    assert large == pytest.approx(2 * small)

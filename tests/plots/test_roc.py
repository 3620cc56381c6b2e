from ganseg_dist.plots.roc import roc_chart
from tests.plots import texts


def test_roc_chart_marks_chosen_threshold():
    points = [(0.0, 0.0), (0.1, 0.8), (1.0, 1.0)]
    assert "chosen threshold" in texts(roc_chart(points, chosen=(0.1, 0.8)))
    assert "chosen threshold" not in texts(roc_chart(points))

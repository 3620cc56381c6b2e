import numpy as np

from ganseg_dist.plots.images import grey, heat, outline_path, outlines

SQUARE = np.zeros((8, 8), np.uint8)
SQUARE[2:5, 3:7] = 1


def test_outlines_run_between_pixels():
    (contour,) = outlines(SQUARE)
    assert contour.min(axis=0).tolist() == [2.5, 1.5]
    assert contour.max(axis=0).tolist() == [6.5, 4.5]
    assert outline_path(SQUARE).startswith("M")
    assert outline_path(SQUARE).count("Z") == 1


def test_outlines_close_at_border_and_are_empty_for_empty_mask():
    (contour,) = outlines(np.ones((4, 4), np.uint8))
    assert contour[0].tolist() == contour[-1].tolist()
    assert contour.min() == -0.5
    assert outlines(np.zeros((4, 4), np.uint8)) == []
    assert outline_path(np.zeros((4, 4), np.uint8)) == ""


def test_grey_and_heat_are_monotonic_and_share_window():
    plane = np.linspace(-1, 1, 64).reshape(8, 8)
    assert grey(plane)[0, 0] == 0
    assert grey(plane)[-1, -1] == 255
    assert grey(plane - 0.5, like=plane)[-1, -1] < 200
    brightness = heat(plane, -1, 1).sum(axis=-1, dtype=int).ravel()
    assert brightness[0] < brightness[32] < brightness[-1]

import warnings

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from ganseg_dist.drawing import grey, heat, outline_path, outlines, save_png
from ganseg_dist.printable import printable

SQUARE = np.zeros((8, 8), np.uint8)
SQUARE[2:5, 3:7] = 1


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


def test_grey_and_heat_keep_order_and_a_shared_window():
    plane = np.linspace(-1, 1, 64).reshape(8, 8)
    assert grey(plane)[0, 0] == 0
    assert grey(plane)[-1, -1] == 255
    assert grey(plane - 0.5, like=plane)[-1, -1] < 200
    brightness = heat(plane, -1, 1).sum(axis=-1, dtype=int).ravel()
    assert brightness[0] < brightness[32] < brightness[-1]


def drawn(*labels: str) -> Figure:
    figure = Figure()
    axes = figure.subplots()
    axes.set_yticks(range(len(labels)), labels)
    axes.set_title("\n".join(labels))
    axes.plot([0, 1], label=labels[0])
    axes.legend()
    return figure


@pytest.mark.parametrize("name", ["$\\foo$", "$x$", "f$unmatched", "\x1b[31mred", "not UTF-8 \udcff", "東京"])
def test_a_figure_shows_a_name_as_it_is(name, tmp_path):
    figure = drawn(name, "other")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_png(figure, tmp_path / "figure.png")
    assert figure.axes[0].get_title() == f"{printable(name)}\nother"
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [printable(name), "other"]


def test_a_dollar_begins_no_formula(tmp_path):
    pixels = []
    for number, title in enumerate(("x", "$x$")):
        figure = Figure()
        figure.text(0.1, 0.5, title)
        save_png(figure, tmp_path / f"{number}.png")
        pixels.append(np.asarray(Image.open(tmp_path / f"{number}.png")))
    assert (pixels[1][..., :3] < 128).any(2).sum() > (pixels[0][..., :3] < 128).any(2).sum()

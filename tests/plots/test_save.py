import warnings
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from ganseg_dist.plots.intervals import Bar, interval_chart, strip_chart
from ganseg_dist.plots.save import save_png, svg
from ganseg_dist.printable import printable


def test_svg_uses_page_colours_and_escapes_text():
    bars = [Bar("<model> $a$", 0.8, 0.7, 0.9, emphasised=True), Bar("other", 0.5)]
    text = svg(interval_chart(bars, axis="Dice", limits=(0, 1)), '"5 < 6"')
    assert "var(--figure-accent)" in text
    assert "#0100" not in text
    assert "<model> $a$" in {element.text for element in ET.fromstring(text).iter()}
    assert ET.fromstring(text).attrib["aria-label"] == '"5 < 6"'


def test_svg_is_reproducible_with_unique_ids():
    def chart(values):
        return svg(strip_chart({"a": values}, axis="Dice"), "Cases")

    def ids(text):
        return {element.attrib["id"] for element in ET.fromstring(text).iter() if "id" in element.attrib}

    assert chart([0.1, 0.2]) == chart([0.1, 0.2])
    assert ids(chart([0.1, 0.2]))
    assert not ids(chart([0.1, 0.2])) & ids(chart([0.1, 0.3]))


def labelled_figure(*labels: str) -> Figure:
    figure = Figure()
    axes = figure.subplots()
    axes.set_yticks(range(len(labels)), labels)
    axes.set_title("\n".join(labels))
    axes.plot([0, 1], label=labels[0])
    axes.legend()
    return figure


@pytest.mark.parametrize("name", ["$\\foo$", "$x$", "f$unmatched", "\x1b[31mred", "not UTF-8 \udcff", "東京"])
def test_save_png_shows_names_without_math_and_escapes(name, tmp_path):
    figure = labelled_figure(name, "other")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_png(figure, tmp_path / "figure.png")
    assert figure.axes[0].get_title() == f"{printable(name)}\nother"
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [printable(name), "other"]


def test_save_png_draws_dollar_signs(tmp_path):
    pixels = []
    for number, title in enumerate(("x", "$x$")):
        figure = Figure()
        figure.text(0.1, 0.5, title)
        save_png(figure, tmp_path / f"{number}.png")
        pixels.append(np.asarray(Image.open(tmp_path / f"{number}.png")))
    assert (pixels[1][..., :3] < 128).any(2).sum() > (pixels[0][..., :3] < 128).any(2).sum()

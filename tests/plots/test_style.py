import pytest

from ganseg_dist.plots.intervals import Bar, interval_chart
from ganseg_dist.plots.style import in_two_lines
from tests.plots import texts


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("FLAIR threshold", ["FLAIR threshold"]),
        ("gan_osmosis_small-lgg-2026-11-22-second", ["gan_osmosis_small-lgg-2026-11-", "22-second"]),
        ("x" * 70, ["x" * 30, "x" * 29 + "…"]),
    ],
)
def test_in_two_lines_wraps_and_truncates_long_name(name, lines):
    assert in_two_lines(name).splitlines() == lines
    chart = interval_chart([Bar(name, 0.5)], axis="Dice", limits=(0, 1))
    assert set(lines) <= set(texts(chart))

import csv

import pytest
from PIL import Image

from ganseg_dist.experiments.run import Outcome
from ganseg_dist.experiments.table import header_and_cells, save_table, tabulate
from ganseg_dist.inference.evaluation import CaseRow


def outcome(arm, fraction, seed, *dice):
    rows = tuple(CaseRow(f"case{n}", f"p{n}", "x", {"wt/dice": d, "wt/iou": d / 2}) for n, d in enumerate(dice))
    return Outcome({"fraction": fraction, "arm": arm, "seed": seed, "patients": 3}, 2.0 + seed, rows)


OUTCOMES = [
    outcome("real", 10, 0, 0.4, 0.6),
    outcome("gan", 10, 0, 0.5, 0.7),
    outcome("real", 10, 1, 0.6, 0.8),
    outcome("gan", 10, 1, 0.7, 0.9),
    outcome("real", 100, 0, 0.9, 0.9),
]


def test_seeds_are_one_row_and_arms_are_compared_over_the_same_patients():
    rows = tabulate(OUTCOMES, ["wt/dice", "wt/iou"], {10: {"dice": 0.7}}, published_by="fraction")
    assert [(row.labels["fraction"], row.labels["arm"], row.runs) for row in rows] == [
        (10, "real", 2), (10, "gan", 2), (100, "real", 1),
    ]  # fmt: skip
    real, gan, whole = rows
    assert real.scores["wt/dice"].mean == pytest.approx(0.6)
    assert real.scores["wt/dice"].n == 2, "patients, not runs"
    assert real.against is None
    assert gan.against.difference.mean == pytest.approx(0.1)
    assert real.seconds == 2.5
    assert (real.published, whole.published) == ({"dice": 0.7}, None)
    assert whole.against is None


def test_the_table_and_the_figure_are_written(tmp_path):
    rows = tabulate(OUTCOMES, ["wt/dice"], {10: {"dice": 0.7}}, published_by="fraction")
    table, figure = save_table(tmp_path, rows, x="fraction", title="fractions")
    lines = list(csv.DictReader(table.open()))
    assert [float(line["wt/dice_mean"]) for line in lines] == pytest.approx([0.6, 0.7, 0.9])
    assert lines[0]["published_dice"] == "0.7"
    assert lines[2]["published_dice"] == ""
    assert Image.open(figure).size[0] > 600
    header, cells = header_and_cells(rows)
    assert len(header) == len(cells[0])
    assert "+0.100" in cells[1][header.index("less the first arm")]


def test_a_figure_without_an_axis_has_a_line_a_row(tmp_path):
    _, figure = save_table(tmp_path, tabulate(OUTCOMES, ["wt/dice"]), x=None, title="ablation")
    assert Image.open(figure).size[1] > 150

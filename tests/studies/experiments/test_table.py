from dataclasses import replace

import pytest
from PIL import Image

from ganseg_dist.errors import DataError
from ganseg_dist.evaluation.results import CaseRow
from ganseg_dist.studies.experiments.figures import curves, intervals
from ganseg_dist.studies.experiments.measures import MeanOf
from ganseg_dist.studies.experiments.table import header_and_cells, markdown, means, save_table, tabulate
from ganseg_dist.studies.trial import TrialResult
from tests.data.cohorts import read_rows


def outcome(arm, fraction, seed, *dice):
    rows = tuple(CaseRow(f"case{n}", f"p{n}", "x", {"wt/dice": d, "wt/iou": d / 2}) for n, d in enumerate(dice))
    return TrialResult("t", {"fraction": fraction, "arm": arm, "seed": seed, "patients": 3}, 2.0 + seed, rows)


DICE = MeanOf("wt/dice")
OUTCOMES = [
    outcome("real", 10, 0, 0.4, 0.6),
    outcome("gan", 10, 0, 0.5, 0.7),
    outcome("real", 10, 1, 0.6, 0.8),
    outcome("gan", 10, 1, 0.7, 0.9),
    outcome("real", 100, 0, 0.9, 0.9),
]


def test_tabulate_pools_seeds_and_pairs_arms_by_patient():
    rows = tabulate(OUTCOMES, [DICE, MeanOf("wt/iou"), MeanOf("et/dice")], {10: {"dice": 0.7}}, published_by="fraction")
    assert [(row.labels["fraction"], row.labels["arm"], row.runs) for row in rows] == [
        (10, "real", 2), (10, "gan", 2), (100, "real", 1),
    ]  # fmt: skip
    real, gan, whole = rows
    assert real.scores["wt/dice"].mean == pytest.approx(0.6)
    assert real.scores["wt/dice"].n == 2, "patients, not runs"
    assert list(real.scores) == ["wt/dice", "wt/iou"], "what no row has is left out"
    assert (real.reference, real.against) == ("", {})
    assert gan.reference == "real"
    assert gan.against["wt/dice"].difference.mean == pytest.approx(0.1)
    assert gan.against["wt/iou"].difference.mean == pytest.approx(0.05)
    assert real.seconds == 2.5
    assert (real.published, whole.published) == ({"dice": 0.7}, {})
    assert whole.against == {}


def test_means_are_named_by_distinguishing_labels():
    rows = tabulate(OUTCOMES, [DICE])
    assert means(rows) == {
        "wt/dice/fraction 10 real": pytest.approx(0.6),
        "wt/dice/fraction 10 gan": pytest.approx(0.7),
        "wt/dice/fraction 100 real": pytest.approx(0.9),
    }
    assert list(means(rows[1:])) == ["wt/dice/fraction 10", "wt/dice/fraction 100"]
    assert list(means(rows[:1])) == ["wt/dice/fraction 10"]
    unnamed = replace(rows[0], labels={"arm": "control, no GAN", "strength": ""})
    assert list(means([unnamed, replace(unnamed, labels={"arm": "control, no GAN", "strength": 0.1})])) == [
        "wt/dice/control no GAN", "wt/dice/control no GAN strength 0.1",
    ]  # fmt: skip


def test_markdown_lines_have_equal_columns():
    title, empty, header, rule, *lines = markdown("fractions", tabulate(OUTCOMES, [DICE])).splitlines()
    assert (title, empty) == ("fractions", "")
    assert {line.count("|") for line in (header, rule, *lines)} == {header.count("|")}
    assert len(lines) == 3
    assert "| 10 | real | 3 | 2 | 2 | 0.600 [" in lines[0]
    assert "patients trained" in header


def test_save_table_writes_csv_and_figure(tmp_path):
    rows = tabulate(OUTCOMES, [DICE], {10: {"dice": 0.7}}, published_by="fraction")
    table, _, figure = save_table(tmp_path, rows, curves(rows, "fraction", "fractions"))
    lines = read_rows(table)
    assert [float(line["wt/dice_mean"]) for line in lines] == pytest.approx([0.6, 0.7, 0.9])
    assert lines[0]["published_dice"] == "0.7"
    assert lines[2]["published_dice"] == ""
    assert float(lines[1]["wt/dice_less_first_mean"]) == pytest.approx(0.1)
    assert lines[0]["wt/dice_less_first_mean"] == ""
    assert Image.open(figure).size[0] > 600
    header, cells = header_and_cells(rows)
    assert len(header) == len(cells[0])
    assert "+0.100" in cells[1][header.index("Dice less real")]
    assert "too few patients" in cells[1][header.index("Dice less real")]
    assert [line[header.index("published Dice")] for line in cells] == ["0.7", "0.7", "–"]


def test_save_table_writes_intervals_figure(tmp_path):
    rows = tabulate(OUTCOMES, [DICE])
    *_, figure = save_table(tmp_path, rows, intervals(rows, "ablation"))
    assert Image.open(figure).size[1] > 150


def test_tabulate_compares_with_first_row_without_setting():
    first, *others = tabulate(OUTCOMES, [DICE], compared=("fraction", "arm"))
    assert first.reference == ""
    assert {row.reference for row in others} == {"10, real"}


def test_tabulate_pools_folds_and_averages_seeds():
    folds = [
        TrialResult("t", {"fold": n, "arm": "model"}, 1.0, (CaseRow(f"c{n}", f"p{n}", "x", {"wt/dice": n / 4}),))
        for n in range(5)
    ]
    row, *each = tabulate(folds, [DICE])
    assert (row.runs, row.scores["wt/dice"].n) == (5, 5)
    assert row.scores["wt/dice"].mean == pytest.approx(0.5)
    assert [(fold.labels["fold"], fold.scores["wt/dice"].mean) for fold in each] == [(n, n / 4) for n in range(5)]
    assert [one.title for one in (row, *each)] == ["all folds", *(f"fold {n}" for n in range(5))]
    assert [one.fold for one in (row, *each)] == [False, *[True] * 5]
    header, cells = header_and_cells([row, *each])
    assert cells[0][: header.index("runs")] == ["all", "model"]
    assert cells[1][header.index("Dice")] == "0.000 –", "a fold of one patient has no interval"


def test_table_has_no_interval_for_one_patient(tmp_path):
    alone = [outcome("real", 10, 0, 0.4), outcome("gan", 10, 0, 0.5)]
    rows = tabulate(alone, [DICE])
    header, cells = header_and_cells(rows)
    assert cells[0][header.index("Dice")] == "0.400 –"
    assert cells[1][header.index("Dice less real")] == "+0.100 – (too few patients)"
    table, *_ = save_table(tmp_path, rows, intervals(rows, "one patient"))
    first, second = read_rows(table)
    assert (first["wt/dice_mean"], first["wt/dice_low"], first["wt/dice_high"], first["wt/dice_n"]) == (
        "0.4", "", "", "1",
    )  # fmt: skip
    assert second["wt/dice_less_first_low"] == ""


def test_table_counts_images_when_patients_are_unknown(tmp_path):
    known = tabulate(OUTCOMES, [DICE])
    images = tabulate([replace(one, patients_known=False) for one in OUTCOMES], [DICE])
    assert "n" in header_and_cells(known)[0]
    assert "images, patients unknown" in header_and_cells(images)[0]
    table, *_ = save_table(tmp_path, images, intervals(images, "images"))
    assert {line["n_counts"] for line in read_rows(table)} == {"images"}


def test_tabulate_rejects_results_without_score():
    with pytest.raises(DataError, match="no et/dice"):
        tabulate(OUTCOMES, [MeanOf("et/dice")])

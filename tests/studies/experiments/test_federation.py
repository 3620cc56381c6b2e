"""Comparison of federated, pooled and single-site models on scores made by hand."""

import pytest

from ganseg_dist.config import override
from ganseg_dist.data.cohort import Split
from ganseg_dist.evaluation.results import CaseRow
from ganseg_dist.studies.experiments.federation import (
    ALONE,
    compare,
    comparison_metrics,
    comparison_table,
    federation_trials,
    save_comparison,
    tabulate_by_site,
    with_mean_of_sites,
)
from ganseg_dist.studies.experiments.measures import AUROC, MeanOf
from ganseg_dist.studies.experiments.table import tabulate
from ganseg_dist.studies.trial import TrialResult
from ganseg_dist.systems import recipe
from tests.data.cohorts import read_rows

DICE = MeanOf("dice")
SITES = {"north": ("p0", "p1", "p9"), "south": ("p2",), "east": ("p8",)}


def outcome(arm, *dice):
    return TrialResult(
        "t", {"arm": arm}, 1.0, tuple(CaseRow(f"c{n}", f"p{n}", "x", {"dice": d}) for n, d in enumerate(dice))
    )


OUTCOMES = [
    outcome("federated", 0.8, 0.8, 0.5),
    outcome("pooled", 0.8, 0.9, 0.7),
    outcome("north alone", 0.7, 0.9, 0.1),
    outcome("south alone", 0.3, 0.1, 0.5),
    outcome("east alone", 0.2, 0.2, 0.0),
]


@pytest.fixture
def by_site():
    return tabulate_by_site(with_mean_of_sites(OUTCOMES), SITES, [DICE, AUROC])


@pytest.fixture
def comparison(by_site):
    (found,) = compare(OUTCOMES, by_site, [DICE])
    return found


def test_federation_trials_share_test_patients_and_train_on_site_patients():
    config = override(recipe("ganet_seg_debug"), {})
    split = Split(("p0", "p8"), ("p1", "p2"), ("p9",))
    trials = {trial.name: trial.split for trial in federation_trials(config, split, SITES)}
    assert list(trials) == ["federated", "pooled", "alone-north", "alone-south", "alone-east"]
    assert trials["pooled"] == trials["federated"] == split
    assert trials["alone-north"] == Split(("p0",), ("p1",), ("p9",))
    assert trials["alone-east"] == Split(("p8",), (), ("p9",))


def test_federation_trials_have_distinct_safe_names():
    config, split = recipe("ganet_seg_debug"), Split(("p0", "p8"), ("p1", "p2"), ("p9",))
    sites = dict(zip(("Spital Ü", "St. Mary/Ward 3", "Spital-U"), SITES.values(), strict=True))
    trials = {trial.name: trial.values["arm"] for trial in federation_trials(config, split, sites)[2:]}
    assert trials["alone-St.-Mary-Ward-3"] == "St. Mary/Ward 3 alone"
    assert trials["alone-Spital-U"] == "Spital-U alone"
    assert len(trials) == 3


def test_compare_pairs_federated_with_pooled_and_mean_of_sites(comparison):
    assert comparison.federated.mean == pytest.approx(0.7)
    assert comparison.pooled.mean == pytest.approx(0.8)
    assert comparison.alone.mean == pytest.approx(1 / 3)
    assert comparison.less_pooled.difference.mean == pytest.approx(-0.1)
    student = 4.3027 * 0.1 / 3**0.5  # of three patients with a standard deviation of 0.1
    assert comparison.less_pooled.difference.low == pytest.approx(-0.1 - student, abs=1e-5)
    assert comparison.less_pooled.differs is None, "three are too few"
    assert comparison.less_alone.difference.mean == pytest.approx(0.7 - 1 / 3)
    assert comparison.less_alone.difference.n == 3, "patients, not patients of every site"
    assert comparison.percent_of_pooled == pytest.approx(87.5)


def test_compare_finds_worst_site_of_federated_model(comparison):
    assert comparison.worst_site == "south"
    assert list(comparison.at_sites) == ["north", "south"], "no test patient is of the third"
    assert comparison.at_sites["south"]["federated"].n == 1
    assert comparison.at_sites["north"]["federated"].mean == pytest.approx(0.8)


def test_tabulate_by_site_lists_own_model_of_each_site(by_site):
    assert [(row.labels["tested at"], row.labels["arm"]) for row in by_site] == [
        (site, arm) for site in ("north", "south") for arm in ("pooled", "federated", ALONE, "the site alone")
    ]
    north, south = by_site[3], by_site[7]
    assert north.scores["dice"].mean == pytest.approx(0.8)
    assert south.scores["dice"].mean == pytest.approx(0.5)
    assert south.against["dice"].difference.mean == pytest.approx(-0.2)
    assert north.reference == "pooled"


def test_with_mean_of_sites_adds_row_before_sites():
    rows = tabulate(with_mean_of_sites(OUTCOMES), [DICE])
    assert [(row.title, row.runs) for row in rows] == [
        ("pooled", 1), ("federated", 1), (ALONE, 3), ("north alone", 1), ("south alone", 1), ("east alone", 1),
    ]  # fmt: skip
    assert rows[2].scores["dice"].n == 3


def test_comparison_is_written_as_table_metrics_and_csv(comparison, tmp_path):
    header, cells = comparison_table([comparison])
    assert header == ["", "Dice"]
    shown = {line[0]: line[1] for line in cells}
    assert shown["federated less pooled"] == "-0.100 [-0.348, +0.148] (too few patients)"
    assert shown["federated in % of pooled"] == "87.5%"
    assert shown["federated, at the site where it is worst"] == "south: 0.500 –, n = 1"
    assert comparison_metrics([comparison])["dice/federated at the worst site"] == pytest.approx(0.5)
    (line,) = read_rows(save_comparison(tmp_path / "comparison.csv", [comparison]))
    assert (line["worst_site"], line["worst_n"], line["worst_low"]) == ("south", "1", "")
    assert float(line["less_alone_mean"]) == pytest.approx(0.7 - 1 / 3)


def test_percent_of_pooled_is_none_when_pooled_is_zero(by_site):
    nothing = [OUTCOMES[0], outcome("pooled", 0.0, 0.0, 0.0), *OUTCOMES[2:]]
    (found,) = compare(nothing, by_site, [DICE])
    assert found.percent_of_pooled is None
    assert "dice/percent of pooled" not in comparison_metrics([found])
    assert comparison_table([found])[1][2][1] == "–"

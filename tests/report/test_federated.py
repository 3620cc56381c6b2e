"""The page's section on a federation."""

import re
import shutil

import numpy as np
import pytest

from ganseg_dist.config import override
from ganseg_dist.errors import RunError
from ganseg_dist.federation.comparison import FederationComparison
from ganseg_dist.federation.fingerprint.histograms import Fingerprint, axes
from ganseg_dist.federation.record import FederationRecord
from ganseg_dist.report import write_report
from ganseg_dist.report.federated import describe_traffic, federation_view, raw_bytes, site_row
from ganseg_dist.report.records import Records
from ganseg_dist.run_record import RunRecord
from ganseg_dist.runs import Run
from ganseg_dist.systems import recipe
from tests.federation.record import federation_json
from tests.report.made_runs import SITES, federated_run, finished_run, simulate

RECORD = FederationRecord.model_validate(federation_json())
CONFIG = override(recipe("ganet_seg_debug"), {"data.modalities": ["t1", "flair"], "data.regions": ["wt"]})


def in_words(page):
    return re.sub(r"\s+", " ", re.sub(r"<(style|script|svg).*?</\1>|<[^>]+>", " ", page, flags=re.DOTALL))


@pytest.fixture
def words(tmp_path):
    return in_words(write_report(federated_run(tmp_path)).read_text())


def test_a_site_has_its_mean_weight_and_the_rounds_that_took_it():
    north, south = (site_row(RECORD, name) for name in RECORD.names)
    assert north.weight == pytest.approx((0.75 + 1 + 0.75) / 3)
    assert (north.rounds, north.left_out, north.examples) == (3, 0, 30)
    assert (south.weight, south.rounds, south.left_out) == (0.25, 2, 1)
    assert south.counts.cases == 2
    silent = FederationRecord.model_validate(
        federation_json(quarantined=[{"site": "east", "round": 1, "reason": "failed"}])
    )
    east = site_row(silent, "east")
    assert (east.weight, east.examples, east.rounds, east.left_out) == (None, None, 0, 1)


def test_traffic_is_told_in_all_and_a_round():
    assert describe_traffic(RECORD) == "8.5 kB in 3 rounds, 2.83 kB a round: 2 kB to the sites, 833 bytes from them"


def test_raw_bytes_are_those_of_the_networks_that_the_stage_trains_and_shares():
    raw = raw_bytes(RECORD, CONFIG)
    assert raw[1] > 0
    assert raw[2] == raw[3], "an update that was left out has come all the same"
    shared = raw_bytes(RECORD, override(CONFIG, {"federation.local": []}))
    assert shared[1] > raw[1], "the discriminator travels too"


def test_the_page_tells_who_took_part_what_was_left_out_and_what_it_is_worth(words):
    assert "3 sites trained together over 12 rounds" in words
    assert "Ulm 7 7 70 0.292 10 of 12 2" in words
    assert "2 updates left out" in words
    assert "Ulm 6 the change&#39;s norm is 9.1 times the usual one, more than 5" in words
    assert "Dice of the tumour against all data pooled: no difference shown, −0.020" in words
    assert "Dice of the tumour against the mean of the sites alone: better, +0.110" in words
    assert "It reaches 97.6% of what all data pooled do." in words
    assert "It is worst at Ulm: 0.770 (0.720 to 0.820, n = 21)." in words
    assert "L1 in the holes in validation, stage healthy" in words
    assert "% of what it would be as float32" in words
    assert "Privacy spent" in words
    assert "Stayed at the sites: images, masks, optimizer states, the discriminator." in words
    assert "Stage healthy 4 rounds, 4 epochs; phases" in words
    assert "Stage segment 8 rounds, 8 epochs; phases" in words
    assert "Dotted: epoch 7, the end of round 11, the best Dice, which is kept." in words


def test_a_federation_that_was_not_compared_or_promised_nothing_says_so(tmp_path):
    run = federated_run(tmp_path)
    (run.folder / "comparison.json").unlink()
    run.describe(sites=SITES)
    kept = run.read("federation.json")
    run.write("federation.json", {
        "rounds": [{name: value for name, value in record.items() if name != "epsilon"} for record in kept["rounds"]]
    })  # fmt: skip
    words = in_words(write_report(run).read_text())
    assert "Not compared with pooled data" in words
    assert "No update was left out." in words
    assert "none promised to a site or a patient" in words
    assert "Privacy spent" not in words
    assert "Bergen – – 90" in words


def test_many_sites_are_lines_alike_of_which_the_outermost_are_named(tmp_path):
    page = write_report(federated_run(tmp_path, sites=23)).read_text()
    assert "The sites that end highest and lowest are named." in page
    assert "federation of 23 sites" in page


def test_without_any_score_or_at_full_precision_there_is_less_to_draw():
    bare = federation_json()
    for kept in bare["rounds"]:
        kept["scores"] = {}
    view = federation_view(FederationRecord.model_validate(bare), None, CONFIG, RunRecord(), {})
    assert [chart.title for chart in view.charts] == ["Weights", "Bytes on the way"]
    assert "float32" not in view.charts[1].caption
    assert view.compared is None


def test_a_run_at_home_has_no_such_section_and_damage_is_named(tmp_path):
    assert "Federation" not in write_report(finished_run(tmp_path)).read_text()
    run = Run(tmp_path / "other")
    run.write("comparison.json", {"patients_known": True, "scores": [{"score": "wt/dice"}]})
    with pytest.raises(RunError, match=r"comparison\.json: scores\.0\.title"):
        run.read_record("comparison.json", FederationComparison)


def told_of_data(run: Run, *values: float) -> None:
    """Sites of ten patients each whose t1 was exported around this value."""
    sites = {}
    for place, value in enumerate(values):
        known = axes(run.config().data)
        points = {name: np.zeros(len(axis) + 1, np.int64) for name, axis in known.items()}
        for name, axis in known.items():
            at = 0 if axis.scale is None else len(axis.apart) + int(axis.scale.bins(value if name == "raw/t1" else 1.0))
            points[name][at] = 1000
        sites[f"site{place}"] = Fingerprint(known, points).to_dict()
    run.write("fingerprint.json", {"sites": sites, "differences": []})


def test_the_page_shows_what_the_sites_told_of_their_data(tmp_path):
    run = federated_run(tmp_path)
    assert "Do their data fit together?" not in write_report(run).read_text()
    told_of_data(run, 100.0, 100.0, 100.0)
    assert "No site lies far from most others." in in_words(write_report(run).read_text())
    told_of_data(run, 100.0, 100.0, 100_000.0)
    page = in_words(write_report(run).read_text())
    assert "Do their data fit together?" in page
    assert "site2: " in page


@pytest.mark.parametrize(("minimum", "notice"), [(1, "no minimum was applied"), (5, "each site withholds what stands")])
def test_a_simulation_tells_what_its_sites_withheld(tmp_path, minimum, notice):
    run = federated_run(tmp_path)
    told_of_data(run, 100.0, 100.0)
    simulate(run, {site: [] for site in SITES}, minimum_group=minimum)
    run.describe(sites=SITES)
    page = in_words(write_report(run).read_text())
    assert page.count(f"Simulation: {notice}") == 1
    assert "Each hospital" not in page


def test_a_deployment_has_neither_cases_to_list_nor_anything_to_be_compared_with(tmp_path):
    run = federated_run(tmp_path)
    (run.folder / "comparison.json").unlink()
    run.write("data.json", run.read("data.json") | {"cases": [], "excluded": []})
    page = in_words(write_report(run).read_text())
    assert "Not compared" not in page
    assert "Stayed at the sites: the server saw none of it." in page
    assert "0 cases" not in page
    assert "No case was left out" not in page


def test_of_a_deployment_and_of_sites_that_are_gone_no_minimum_is_made_up(tmp_path):
    run = federated_run(tmp_path)
    told_of_data(run, 100.0, 100.0)
    notice = "Each hospital withholds what stands for fewer patients than its own minimum_group."
    assert notice in in_words(write_report(run).read_text())
    run.describe(sites=SITES)
    page = in_words(write_report(run).read_text())
    assert notice not in page
    assert "Simulation: the sites' folders" in page.replace("&#39;", "'")


def test_sites_without_test_patients_are_named_and_the_only_one_tested_is_not_the_worst(tmp_path):
    run = federated_run(tmp_path)
    kept = run.read("comparison.json")
    (score,) = kept["scores"]
    score["at_sites"] = {"Leuven": score["at_sites"]["Leuven"]}
    run.write("comparison.json", kept | {"scores": [score | {"worst_site": "Leuven"}]})
    assert "no test patients" not in write_report(run).read_text(), "nothing says who was where"
    simulate(run, {"Bergen": [], "Leuven": ["Ulm-p001"], "Ulm": []})
    page = in_words(write_report(run).read_text())
    assert "Bergen, Ulm: no test patients." in page
    assert "worst at" not in page


def test_cases_are_of_the_sites_that_they_were_dealt_out_to(tmp_path):
    run = federated_run(tmp_path)
    shutil.copytree(finished_run(tmp_path).folder / "evaluation", run.folder / "evaluation")
    simulate(run, {"site1": ["Ulm-p001"], "site2": ["Bergen-p000", "Ulm-p002"]})
    records = Records.of(run)
    at = {case.patient: case.site for case in records.data.cases}
    assert (at["Ulm-p001"], at["Bergen-p000"], at["Ulm-p002"]) == ("site1", "site2", "site2")
    assert {case.patient: case.site for case in records.evaluations[0].cases} == at


def test_a_damaged_site_is_named(tmp_path):
    run = federated_run(tmp_path)
    run.write("sites/Ulm/site.json", {"name": "Ulm"})
    with pytest.raises(RunError, match=r"site\.json: minimum_group"):
        write_report(run)


def test_damage_to_what_the_sites_told_is_named(tmp_path):
    run = federated_run(tmp_path)
    run.write("fingerprint.json", {"sites": {"north": {"histograms": {}}}})
    with pytest.raises(RunError, match=r"fingerprint\.json: is damaged"):
        write_report(run)


def test_an_interrupted_federation_goes_on_by_its_own_command(tmp_path):
    run = federated_run(tmp_path)
    run.describe(status="interrupted", command="ganseg federate ganet_seg_debug --data /data")
    page = write_report(run).read_text()
    assert "<code>ganseg federate ganet_seg_debug --data /data</code></p>" in page
    assert "train --resume" not in page

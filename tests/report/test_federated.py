"""The page's section on a federation."""

import re
import shutil

import numpy as np
import pytest

from ganseg_dist.config import override
from ganseg_dist.errors import ConfigError, RunError
from ganseg_dist.federation.comparison import FederationComparison
from ganseg_dist.federation.fingerprint.histograms import Fingerprint, axes
from ganseg_dist.federation.record import FederationRecord
from ganseg_dist.report.federated import describe_traffic, federation_view, raw_bytes, site_row
from ganseg_dist.report.page import write_report
from ganseg_dist.report.reading import Records
from ganseg_dist.runs import Run, RunRecord
from ganseg_dist.systems import recipe
from tests.federation.record import federation_json
from tests.report.made_runs import SITES, federated_run, finished_run, simulate

RECORD = FederationRecord.model_validate(federation_json())
CONFIG = override(recipe("ganet_seg_debug"), {"data.modalities": ["t1", "flair"], "data.regions": ["wt"]})


def page_text(page):
    return re.sub(r"\s+", " ", re.sub(r"<(style|script|svg).*?</\1>|<[^>]+>", " ", page, flags=re.DOTALL))


@pytest.fixture
def text(tmp_path):
    return page_text(write_report(federated_run(tmp_path)).read_text())


def test_site_row_has_mean_weight_and_rounds():
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


KEY = f"SHA256:{'k' * 43}"
HERE, ELSEWHERE = ({"protocol": 1, "version": "0.1.0", "code": digit * 64} for digit in "ab")


def test_report_shows_keys_revocations_and_other_code(tmp_path):
    run = federated_run(tmp_path)
    sites = {
        "north": {"patients": 3, "key": KEY, "versions": HERE},
        "south": {"patients": 1, "key": KEY, "versions": ELSEWHERE, "revoked": True},
    }
    run.write("federation.json", federation_json(sites=sites, server=HERE))
    shown = page_text(write_report(run).read_text())
    assert "north SHA256:kkkkkkkkkkkk 3" in shown
    assert "south SHA256:kkkkkkkkkkkk (revoked) 1" in shown
    assert (
        "south runs other code than the server: ganseg-dist 0.1.0, code bbbbbbbbbbbb, the server ganseg-dist 0.1.0, "
        "code aaaaaaaaaaaa."
    ) in shown
    assert "north runs other code" not in shown


def test_report_shows_times_of_sites_and_rounds(tmp_path):
    run = federated_run(tmp_path)
    kept = federation_json()
    for number, record in enumerate(kept["rounds"], start=1):
        record |= {"seconds": 70.0 * number, "unanswered": ["east"]}
        for place, part in enumerate(record["sites"].values()):
            part["seconds"] = 10.0 * (place + 1)
    kept["sites"]["east"] = {"patients": 2}
    run.write("federation.json", kept)
    shown = page_text(page := write_report(run).read_text())
    assert "Unanswered Mean time Scores" in shown
    assert "north – 3 6 30 0.833 3 of 3 0 0 10 s sent" in shown
    assert re.search(r"east – 2 – – – 0 of 3 0 3 – –", shown)
    assert "Time of rounds" in shown
    assert "The longest, round 3, took 3 min 30 s." in page


def test_report_names_sites_that_withhold_scores(tmp_path):
    run = federated_run(tmp_path)
    kept = federation_json()
    for record in kept["rounds"]:
        for name, part in record["sites"].items():
            part["scores"] = {} if name == "south" else {"dice_wt": 0.5}
    run.write("federation.json", kept)
    shown = page_text(write_report(run).read_text())
    assert re.search(r"north [^.]* sent south [^.]* withheld", shown.replace("0.", "0,"))
    assert "Withheld: a site sends no score of fewer patients than its minimum_group" in shown
    assert "Mean time" not in shown


def test_describe_traffic_gives_total_and_per_round():
    assert describe_traffic(RECORD) == "8.5 kB in 3 rounds, 2.83 kB a round: 2 kB to the sites, 833 bytes from them"


def test_raw_bytes_count_trained_and_shared_networks():
    raw = raw_bytes(RECORD, CONFIG)
    assert raw[1] > 0
    assert raw[2] == raw[3], "an update that was left out has come all the same"
    shared = raw_bytes(RECORD, override(CONFIG, {"federation.local": []}))
    assert shared[1] > raw[1], "the discriminator travels too"


def test_report_shows_sites_quarantine_and_comparison(text):
    assert "3 sites trained together over 12 rounds" in text
    assert "Ulm – 7 7 70 0.292 10 of 12 2" in text
    assert "2 messages left out" in text
    assert "Ulm 6 update the change&#39;s norm is 9.1 times the usual one, more than 5" in text
    assert "Dice of the tumour against all data pooled: no difference shown, −0.020" in text
    assert "Dice of the tumour against the mean of the sites alone: better, +0.110" in text
    assert "It reaches 97.6% of the score with all data pooled." in text
    assert "It is worst at Ulm: 0.770 (0.720 to 0.820, n = 21)." in text
    assert "L1 in the holes in validation, stage healthy" in text
    assert "% of their size as float32" in text
    assert "Privacy spent" in text
    assert "Stayed at the sites: images, masks, optimizer states, the discriminator." in text
    assert "Stage healthy 4 rounds, 4 epochs; phases" in text
    assert "Stage segment 8 rounds, 8 epochs; phases" in text
    assert "Dotted: epoch 7, the end of round 11, the best Dice, which is kept." in text


def test_report_notes_missing_comparison_and_privacy(tmp_path):
    run = federated_run(tmp_path)
    (run.folder / "comparison.json").unlink()
    run.describe(sites=SITES)
    kept = run.read("federation.json")
    run.write("federation.json", {
        "rounds": [{name: value for name, value in record.items() if name != "epsilon"} for record in kept["rounds"]]
    })  # fmt: skip
    text = page_text(write_report(run).read_text())
    assert "Not compared with pooled data" in text
    assert "No message was left out." in text
    assert "none guaranteed to a site or a patient" in text
    assert "Privacy spent" not in text
    assert "Bergen – – – 90" in text


def test_report_of_many_sites_labels_extreme_sites_only(tmp_path):
    page = write_report(federated_run(tmp_path, sites=23)).read_text()
    assert "The sites that end highest and lowest are named." in page
    assert "federation of 23 sites" in page


def test_federation_view_omits_charts_without_scores():
    bare = federation_json()
    for kept in bare["rounds"]:
        kept["scores"] = {}
    record = FederationRecord.model_validate(bare)
    view = federation_view(Records("run", RunRecord(), CONFIG, (), None, None, (), (), None, federation=record))
    assert [chart.title for chart in view["charts"]] == ["Weights", "Bytes transferred"]
    assert "float32" not in view["charts"][1].caption
    assert view["compared"] is None


def test_report_omits_federation_of_local_run_and_names_damage(tmp_path):
    assert "Federation" not in write_report(finished_run(tmp_path)).read_text()
    run = Run(tmp_path / "other")
    run.write("comparison.json", {"patients_known": True, "scores": [{"score": "wt/dice"}]})
    with pytest.raises(RunError, match=r"comparison\.json: scores\.0\.title"):
        run.read_record("comparison.json", FederationComparison)


def write_fingerprints(run: Run, *values: float) -> None:
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


def test_report_shows_deviating_fingerprints(tmp_path):
    run = federated_run(tmp_path)
    assert "Differences between the sites' data" not in write_report(run).read_text()
    write_fingerprints(run, 100.0, 100.0, 100.0)
    assert "No site lies far from most others." in page_text(write_report(run).read_text())
    write_fingerprints(run, 100.0, 100.0, 100_000.0)
    page = page_text(write_report(run).read_text())
    assert "Differences between the sites' data" in page
    assert "site2: " in page


@pytest.mark.parametrize(("minimum", "notice"), [(1, "no minimum was applied"), (5, "each site withholds numbers")])
def test_report_of_simulation_states_minimum_group(tmp_path, minimum, notice):
    run = federated_run(tmp_path)
    write_fingerprints(run, 100.0, 100.0)
    simulate(run, {site: [] for site in SITES}, minimum_group=minimum)
    run.describe(sites=SITES)
    page = page_text(write_report(run).read_text())
    assert page.count(f"Simulation: {notice}") == 1
    assert "Each hospital" not in page


def test_report_of_deployment_omits_cases_and_comparison(tmp_path):
    run = federated_run(tmp_path)
    (run.folder / "comparison.json").unlink()
    run.write("data.json", run.read("data.json") | {"cases": [], "excluded": []})
    page = page_text(write_report(run).read_text())
    assert "Not compared" not in page
    assert "Stayed at the sites: the server saw none of it." in page
    assert "0 cases" not in page
    assert "No case was left out" not in page


def test_report_states_no_minimum_group_without_site_folders(tmp_path):
    run = federated_run(tmp_path)
    write_fingerprints(run, 100.0, 100.0)
    notice = "Each hospital withholds numbers of fewer patients than its minimum_group."
    assert notice in page_text(write_report(run).read_text())
    run.describe(sites=SITES)
    page = page_text(write_report(run).read_text())
    assert notice not in page
    assert "Simulation: the sites' folders" in page.replace("&#39;", "'")


def test_report_names_sites_without_test_patients(tmp_path):
    run = federated_run(tmp_path)
    kept = run.read("comparison.json")
    (score,) = kept["scores"]
    score["at_sites"] = {"Leuven": score["at_sites"]["Leuven"]}
    run.write("comparison.json", kept | {"scores": [score | {"worst_site": "Leuven"}]})
    assert "no test patients" not in write_report(run).read_text(), "nothing states which patients a site had"
    simulate(run, {"Bergen": [], "Leuven": ["Ulm-p001"], "Ulm": []})
    page = page_text(write_report(run).read_text())
    assert "Bergen, Ulm: no test patients." in page
    assert "worst at" not in page


def test_records_assign_cases_to_simulated_sites(tmp_path):
    run = federated_run(tmp_path)
    shutil.copytree(finished_run(tmp_path).folder / "evaluation", run.folder / "evaluation")
    simulate(run, {"site1": ["Ulm-p001"], "site2": ["Bergen-p000", "Ulm-p002"]})
    records = Records.of(run)
    at = {case.patient: case.site for case in records.data.cases}
    assert (at["Ulm-p001"], at["Bergen-p000"], at["Ulm-p002"]) == ("site1", "site2", "site2")
    assert {case.patient: case.site for case in records.evaluations[0].cases} == at


def test_report_rejects_damaged_site_toml(tmp_path):
    run = federated_run(tmp_path)
    (run.folder / "sites" / "Ulm").mkdir(parents=True)
    (run.folder / "sites" / "Ulm" / "site.toml").write_text('name = "Ulm"')
    with pytest.raises(ConfigError, match=r"site\.toml: data: is missing"):
        write_report(run)


def test_report_rejects_damaged_fingerprint_json(tmp_path):
    run = federated_run(tmp_path)
    run.write("fingerprint.json", {"sites": {"north": {"histograms": {}}}})
    with pytest.raises(RunError, match=r"fingerprint\.json: is damaged"):
        write_report(run)


def test_report_names_command_that_resumes_federation(tmp_path):
    run = federated_run(tmp_path)
    run.describe(status="interrupted", command="ganseg federate ganet_seg_debug --data /data")
    page = write_report(run).read_text()
    assert "<code>ganseg federate ganet_seg_debug --data /data</code></p>" in page
    assert "train --resume" not in page

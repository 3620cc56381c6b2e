"""Simulating a federation from the command line."""

import json
import re

import pytest
from mlflow import MlflowClient

from ganseg_dist.data.cohort import split_as_configured
from ganseg_dist.data.readers import read_cohort
from ganseg_dist.federation.site_settings import SiteSettings
from ganseg_dist.runs import Run
from tests.cli.conftest import assert_error
from tests.data.cohorts import read_rows, write_manifest, write_rows


@pytest.fixture(scope="module")
def federate_args(phantom):
    return (
        "federate", "ganet_seg_debug", "--data", phantom, "--local", "--run-name", "together", "--sites", "2",
        "--set", "system.gan=false", "--set", "train.epochs=2", "--set", "data.test_fraction=0.4",
    )  # fmt: skip


def test_federate_writes_comparison_tracking_report_and_egress_manifests(ganseg, federate_args, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    first = ganseg(*federate_args)
    assert first.code == 0, first.err
    runs = tmp_path / "runs"
    assert_compared(first.out, runs)
    assert_tracked(runs)
    assert_reported(ganseg, runs)
    federation = json.loads((runs / "together.federated" / "federation.json").read_text())
    assert [record["round"] for record in federation["rounds"]] == [1, 2]
    assert all(set(record["sites"]) == {"site1", "site2"} for record in federation["rounds"])
    assert federation["quarantined"] == []
    for site in ("site1", "site2"):
        manifest = runs / "together.federated" / "sites" / site / "egress.jsonl"
        audited = ganseg("audit", manifest, "--json")
        assert audited.code == 0
        text = manifest.read_text()
        assert str(tmp_path) not in text
        patients = SiteSettings.load(manifest.parent / "site.toml").patients
        assert patients
        assert all(patient not in text for patient in patients)
    again = ganseg(*federate_args)
    assert again.code == 0
    assert again.out == first.out
    assert_tracked(runs)


def assert_compared(out, runs):
    """Pooled, federated and single-site models are compared on the same three patients; traffic is printed."""
    rows = {row["arm"]: row for row in read_rows(runs / "together" / "table.csv")}
    assert list(rows) == ["pooled", "federated", "mean of the sites alone", "site1 alone", "site2 alone"]
    assert {row["wt/dice_n"] for row in rows.values()} == {"3"}
    assert (runs / "together" / "by_site" / "figure.png").stat().st_size > 0
    dice = {line["score"]: line for line in read_rows(runs / "together" / "comparison.csv")}["wt/dice"]
    less = float(rows["federated"]["wt/dice_mean"]) - float(rows["pooled"]["wt/dice_mean"])
    assert float(dice["less_pooled_mean"]) == pytest.approx(less)
    assert dice["worst_site"] in ("site1", "site2")
    assert "federation: ganet_seg_debug on cohort (phantom) (mean, 95% interval over test patients)" in out
    assert f"{dice['worst_site']}: " in next(line for line in out.splitlines() if "where it is worst" in line)
    assert re.search(r"^sent: .+ in 2 rounds, .+ a round: .+ to the sites, .+ from them$", out, re.MULTILINE)


def assert_tracked(runs):
    """MLflow nests sites under the federation and that under the experiment, with curves of the same steps."""
    client = MlflowClient(f"sqlite:///{runs / 'mlflow.db'}")
    logged = {run.info.run_name: run for run in client.search_runs(["1"])}
    assert len(logged) == 1 + 4 + 2
    parent, federated = logged["together"], logged["together.federated"]
    assert parent.data.tags["mlflow.source.name"] == "ganseg federate"
    assert "wt/dice/federated less pooled" in parent.data.metrics
    assert federated.data.tags["mlflow.parentRunId"] == parent.info.run_id
    children = [logged[f"together.federated.{site}"] for site in ("site1", "site2")]
    assert [child.data.tags["mlflow.parentRunId"] for child in children] == [federated.info.run_id] * 2
    assert [child.data.params["rounds"] for child in children] == ["2", "2"]

    def steps(name):
        histories = [client.get_metric_history(run.info.run_id, name) for run in (federated, *children)]
        return [[point.step for point in history] for history in histories]

    assert steps("segment/supervised/segmentation") == [[1, 2]] * 3
    assert sorted(steps("segment/dice_wt")[1:]) == [[], [1, 2]], "one site has no validation patient"


def assert_reported(ganseg, runs):
    """Page and card describe the federation."""
    reported = ganseg("report", "together.federated")
    assert reported.code == 0, reported.err
    page = (runs / "together.federated" / "report.html").read_text()
    assert "2 sites trained together over 2 rounds" in page
    assert "by site of the test patients" in page
    assert_error(ganseg("report", "together"), 1, "give a run, such as together.federated")
    card = (runs / "together.federated" / "model" / "card.md").read_text()
    assert "## Federation\n- Sites: site1" in card
    assert "Federation" not in (runs / "together.pooled" / "model" / "card.md").read_text()


@pytest.mark.slow
def test_federate_omits_auroc_by_site_for_classifier_of_few_images(ganseg, phantom, tmp_path):
    args = ("federate", "gan_detector_debug", "--data", phantom, "--local", "--run-name", "lesions", "--sites", "2")
    done = ganseg(*args, "--set", "train.epochs=1", "--set", "system.gan=false", "--set", "data.test_fraction=0.4")
    assert done.code == 0, done.err
    lines = read_rows(tmp_path / "runs" / "lesions" / "by_site" / "table.csv")
    assert {line["arm"] for line in lines} == {"pooled", "federated", "mean of the sites alone", "the site alone"}
    assert not any(name.startswith("auroc") for name in lines[0])
    scores = {line["score"]: line for line in read_rows(tmp_path / "runs" / "lesions" / "comparison.csv")}
    assert scores["accuracy"]["worst_site"]
    assert (scores["auroc"]["worst_site"], scores["auroc"]["less_pooled_differs"]) == ("", "")


@pytest.mark.slow
def test_federate_leaves_out_hospital_of_one_patient_in_every_arm(ganseg, tmp_path):
    """It aborted. The pooled model is trained on the same patients, and all are tested on all test patients."""
    cohort = write_manifest(tmp_path / "cohort", [f"p{number}" for number in range(9)])
    rows = read_rows(cohort)
    for number, row in enumerate(rows):
        row["site"] = "Ulm" if number == 8 else ("Bonn", "Kiel")[number % 2]
    write_rows(cohort, rows)
    args = ("federate", "ganet_seg_debug", "--data", cohort, "--local", "--run-name", "few", "--set", "seed=1")
    short = ("--set", "system.gan=false", "--set", "train.epochs=1", "--set", "data.test_fraction=0.3")
    done = ganseg(*args, *short)
    assert done.code == 0, done.err
    why = "has 1 patient, and a site needs 2"
    assert done.err.count(f"warning: Ulm: takes no part: {why}") == 1
    runs = tmp_path / "runs"
    federated, pooled = Run(runs / "few.federated"), Run(runs / "few.pooled")
    assert federated.description().left_out == {"Ulm": why}
    assert federated.description().sites == {"Bonn": 4, "Kiel": 4}
    assert federated.split() == pooled.split()
    assert "p8" not in (*pooled.split().train, *pooled.split().validation)
    whole = split_as_configured(read_cohort(cohort), pooled.config())
    assert "p8" in whole.train
    assert pooled.split().test == whole.test
    assert sorted(folder.name for folder in (federated.folder / "sites").iterdir()) == ["Bonn", "Kiel"]
    assert ganseg("report", "few.federated").code == 0
    assert f"Ulm takes no part: it {why}." in (federated.folder / "report.html").read_text()
    again = ganseg(*args, *short)
    assert (again.code, again.out) == (0, done.out)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--strategy", "krum"), "krum needs 5 sites for federation.suspected_sites=1 and there are 2"),
        (("--strategy", "fedmedian"), "fedmedian needs 3 sites and there are 2"),
        (("--strategy", "best"), "federation.strategy"),
        (("--sites", "9"), "--sites 9"),
        (("--skew", "dirichlet:0"), "--skew dirichlet:0"),
        (("--set", 'federation.local=["critic"]'), "federation.local: critic is no network of ganet_seg_debug"),
        (("--set", 'federation.personalised=["critic"]'), "federation.personalised: critic is no network"),
        (("--set", 'federation.local=["segmenter"]'), "federation.local: holds every network"),
        (("--gpus", "1"), "--local: is this one process"),
        (
            ("--sites", "3", "--strategy", "fedmedian", "--set", "federation.privacy.epsilon=8"),
            "federation.strategy: fedmedian chooses among single updates",
        ),
    ],
)
def test_federate_rejects_invalid_options_without_creating_run(ganseg, federate_args, tmp_path, more, message):
    result = ganseg(*federate_args, "--run-name", "invalid", *more)
    assert_error(result, result.code, message)
    assert result.code in (1, 2)
    assert not (tmp_path / "runs" / "invalid").exists()


@pytest.mark.slow
def test_federate_names_changed_field_of_existing_run(ganseg, federate_args, tmp_path):
    one = ganseg(*federate_args, "--sites", "1", "--rounds", "9", "--run-name", "one")
    assert one.code == 0, one.err
    assert "note: 2 rounds and not 9" in one.err
    assert "note: one site alone is no federation" in one.err
    other = ganseg(*federate_args, "--sites", "1", "--rounds", "1", "--run-name", "one")
    assert_error(other, 1, "federation.rounds was 9, is 1")


@pytest.mark.slow
def test_predict_anomaly_needs_model_of_a_site(ganseg, phantom, tmp_path):
    args = ("federate", "ganet_seg_debug", "--data", phantom, "--local", "--run-name", "both", "--sites", "2")
    assert ganseg(*args, "--set", "train.epochs=2", "--set", "system.healthy_epochs=1").code == 0
    server = tmp_path / "runs" / "both.federated"
    case = next(folder for folder in sorted(phantom.iterdir()) if folder.is_dir())
    words = (case, "--anomaly", "--out")
    assert_error(ganseg("predict", server, *words, tmp_path / "a"), 2, "discriminators stayed at the sites")
    own = server / "sites" / "site1" / "runs" / server.name / "model"
    result = ganseg("predict", own, *words, tmp_path / "b")
    assert result.code == 0, result.err
    assert list((tmp_path / "b").rglob("*anomaly*"))

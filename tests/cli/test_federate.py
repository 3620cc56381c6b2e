"""Rehearsing a federation from the command line."""

import csv
import json

import pytest

from tests.cli.conftest import assert_refused


@pytest.fixture(scope="module")
def words(phantom):
    return (
        "federate", "ganet_seg_debug", "--data", phantom, "--local", "--run-name", "together", "--sites", "2",
        "--set", "system.gan=false", "--set", "train.epochs=2", "--set", "data.test_fraction=0.4",
    )  # fmt: skip


def test_a_rehearsal_ends_with_a_comparison_and_a_manifest_at_every_site(ganseg, words, tmp_path):
    first = ganseg(*words)
    assert first.code == 0, first.err
    runs = tmp_path / "runs"
    with (runs / "together" / "table.csv").open() as file:
        rows = {row["arm"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["federated", "pooled", "site1 alone", "site2 alone"]
    assert {row["wt/dice_n"] for row in rows.values()} == {"3"}
    assert (runs / "together" / "by_site" / "figure.png").stat().st_size > 0
    told = json.loads((runs / "together.federated" / "federation.json").read_text())
    assert [record["round"] for record in told["rounds"]] == [1, 2]
    assert all(set(record["sites"]) == {"site1", "site2"} for record in told["rounds"])
    assert told["quarantined"] == []
    for site in ("site1", "site2"):
        manifest = runs / "together.federated" / "sites" / site / "egress.jsonl"
        audited = ganseg("audit", manifest, "--json")
        assert audited.code == 0
        text = manifest.read_text()
        assert str(tmp_path) not in text
        assert all(
            patient not in text for patient in json.loads((manifest.parent / "site.json").read_text())["patients"]
        )
    again = ganseg(*words)
    assert again.code == 0
    assert again.out == first.out


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--strategy", "krum"), "krum needs 5 sites for federation.suspected_sites=1 and there are 2"),
        (("--strategy", "fedmedian"), "fedmedian needs 3 sites and there are 2"),
        (("--strategy", "best"), "federation.strategy"),
        (("--sites", "9"), "--sites 9"),
        (("--skew", "dirichlet:0"), "--skew dirichlet:0"),
        (("--set", 'federation.local=["critic"]'), "federation.local: critic is no network of ganet_seg_debug"),
        (("--set", 'federation.personalised=["critic"]'), "federation.personalised: critic is no network"),
        (("--set", 'federation.local=["segmenter"]'), "federation.local: holds every network"),
    ],
)
def test_what_no_federation_can_be_is_refused(ganseg, words, more, said):
    refused = ganseg(*words, "--run-name", "refused", *more)
    assert_refused(refused, refused.code, said)
    assert refused.code in (1, 2)


def test_the_servers_model_maps_no_anomalies_and_a_sites_own_does(ganseg, phantom, tmp_path):
    words = ("federate", "ganet_seg_debug", "--data", phantom, "--local", "--run-name", "both", "--sites", "2")
    assert ganseg(*words, "--set", "train.epochs=2", "--set", "system.healthy_epochs=1").code == 0
    server = tmp_path / "runs" / "both.federated"
    case = next(folder for folder in sorted(phantom.iterdir()) if folder.is_dir())
    asked = (case, "--anomaly", "--out")
    assert_refused(ganseg("predict", server, *asked, tmp_path / "a"), 2, "discriminators stayed at the sites")
    own = server / "sites" / "site1" / "runs" / server.name / "model"
    said = ganseg("predict", own, *asked, tmp_path / "b")
    assert said.code == 0, said.err
    assert list((tmp_path / "b").rglob("*anomaly*"))

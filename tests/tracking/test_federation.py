"""A federation's sites as children of its run in MLflow."""

import pytest
from mlflow import MlflowClient

from ganseg_dist.federation.record import FederationRecord
from ganseg_dist.tracking.results import log_sites, site_params
from ganseg_dist.tracking.tracked_run import open_tracking
from tests.federation.record import federation_json


@pytest.fixture
def tracked(run):
    tracked = open_tracking(run)
    run.describe(mlflow=tracked.to_dict())
    return tracked


def children(client, tracked):
    """Child runs in MLflow by site."""
    beneath = f"tags.`mlflow.parentRunId` = '{tracked.run_id}'"
    found = client.search_runs([tracked.experiment_id], beneath)
    return {child.data.tags["ganseg.site"]: child for child in found}


def test_log_sites_creates_one_child_run_per_site(run, tracked):
    rounds = federation_json()["rounds"]
    rounds[1]["sites"]["north"]["scores"] = {}
    rounds[2]["epsilon"] = 1.5
    run.write("federation.json", federation_json(rounds=rounds))
    log_sites(run)
    log_sites(run)
    client = MlflowClient(tracked.uri)
    found = children(client, tracked)
    assert sorted(found) == ["north", "south"]
    north, south = found["north"], found["south"]
    assert north.info.run_name == "first.north"
    assert north.info.status == "FINISHED"
    assert south.data.params == {
        "site": "south", "patients": "1", "cases": "2", "slices": "9", "rounds": "2", "left_out": "1",
    }  # fmt: skip

    def curve(run_id, name):
        return [(point.step, point.value) for point in client.get_metric_history(run_id, name)]

    assert curve(north.info.run_id, "weight") == [(2, 0.75), (5, 1.0), (6, 0.75)], "by epochs done, as the run's own"
    assert curve(south.info.run_id, "weight") == [(2, 0.25), (6, 0.25)]
    assert curve(north.info.run_id, "segment/dice_wt") == [(6, 0.7)], "a round without a score of the site has no point"
    assert curve(south.info.run_id, "healthy/phase/term") == [(2, 1.0)]
    assert curve(tracked.run_id, "federation/bytes_from_sites") == [(2, 1000.0), (5, 500.0), (6, 1000.0)]
    assert curve(tracked.run_id, "federation/epsilon") == [(6, 1.5)]


def test_site_params_name_the_sites_key_and_code():
    key = f"SHA256:{'k' * 43}"
    versions = {"protocol": 1, "version": "0.1.0", "code": "a" * 64}
    sites = {"south": {"patients": 1, "key": key, "versions": versions}}
    params = site_params(FederationRecord.model_validate(federation_json(sites=sites)), "south")
    assert params == {
        "site": "south", "patients": "1", "rounds": "2", "left_out": "1",
        "key": key, "code": "ganseg-dist 0.1.0, code aaaaaaaaaaaa",
    }  # fmt: skip


def test_log_sites_creates_no_children_for_local_run(run, tracked):
    log_sites(run)
    assert children(MlflowClient(tracked.uri), tracked) == {}


def test_log_sites_ignores_untracked_run(run):
    run.write("federation.json", federation_json())
    log_sites(run)

"""Numbers of workers in elastic training; tests of lost nodes cover Ray's own part."""

from types import SimpleNamespace

import pytest
from ray.train import ScalingConfig

import ganseg_dist.cluster.elastic as elastic
from ganseg_dist.cluster.elastic import EpochwiseRules, sizes_between
from ganseg_dist.compat import ray as compat
from ganseg_dist.errors import RunError


def test_sizes_between_are_divisors_of_batch_size():
    assert sizes_between(1, 4, 80) == (1, 2, 4)
    assert sizes_between(3, 10, 80) == (4, 5, 8, 10)
    assert sizes_between(3, 3, 80) == ()


@pytest.fixture
def policy(tmp_path, monkeypatch):
    """An elastic policy of one to four workers with one CPU each and a batch of 16; the test sets the nodes."""
    scaling = ScalingConfig(num_workers=(1, 4), elastic_resize_monitor_interval_s=0.0)
    policy = compat.ElasticPolicy(scaling, EpochwiseRules((1, 2, 4), tmp_path, 60))
    policy.nodes = {"a": {"CPU": 3.0}}
    monkeypatch.setattr(policy, "_maybe_send_resource_request", lambda: None)
    monkeypatch.setattr(policy, "_get_reserved_resources", lambda: policy.nodes)
    monkeypatch.setattr(elastic, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(compat, "held_workers", lambda group: group)
    policy.unused = {"CPU": 8.0}
    monkeypatch.setattr("ray.available_resources", lambda: policy.unused)
    return policy


def group_of(workers):
    """A running group's state; `held` takes its placement group for the number of its workers."""
    handle = SimpleNamespace(placement_group=workers)
    return SimpleNamespace(start_time=0.0, num_workers=workers, placement_group_handle=handle)


def test_elastic_policy_starts_with_largest_size_that_fits(policy):
    assert policy.make_decision_for_non_running_worker_group().num_workers == 2
    policy.nodes = {"a": {"CPU": 3.0}, "b": {"CPU": 2.0}}
    assert policy.make_decision_for_non_running_worker_group().num_workers == 4


def test_elastic_policy_ignores_resources_used_by_others(policy, tmp_path):
    policy.nodes = {"a": {"CPU": 4.0}}
    policy.unused = {"CPU": 1.5}
    assert policy.make_decision_for_non_running_worker_group().num_workers == 1
    (tmp_path / "step-000000010-stage-0").mkdir()
    decision = policy.make_decision_for_running_worker_group(worker_group_state=group_of(1), worker_group_status=None)
    assert decision.num_workers == 2, "one more than it has"


def test_elastic_policy_counts_resources_held_by_lost_group(policy, tmp_path):
    policy.nodes = {"a": {"CPU": 4.0}}
    policy.unused = {"CPU": 0.0}
    assert not hasattr(policy.make_decision_for_non_running_worker_group(), "num_workers")
    policy.make_decision_for_running_worker_group(worker_group_state=group_of(4), worker_group_status=None)
    policy.group = 3  # one was lost with its node
    assert policy.make_decision_for_non_running_worker_group().num_workers == 2
    policy.group = 0  # Ray has given it back, and others have taken it
    assert not hasattr(policy.make_decision_for_non_running_worker_group(), "num_workers")


def test_held_workers_counts_bundles_on_live_nodes(monkeypatch):
    table = {"state": "RESCHEDULING", "bundles_to_node_id": {0: "", 1: "9592a7", 2: "fffe01"}}
    monkeypatch.setattr("ray.util.placement_group_table", lambda group: table)
    assert compat.held_workers(None) == 2
    table["state"] = "REMOVED"
    assert compat.held_workers(None) == 0


def test_elastic_policy_adds_workers_only_after_checkpoint(policy, tmp_path):
    def while_running():
        decision = policy.make_decision_for_running_worker_group(
            worker_group_state=group_of(2), worker_group_status=None
        )
        return getattr(decision, "num_workers", None)

    (tmp_path / "step-000000010-stage-0").mkdir()
    policy.make_decision_for_non_running_worker_group()
    policy.nodes = {"a": {"CPU": 4.0}}
    assert while_running() is None, "in the middle of an epoch"
    (tmp_path / "step-000000020-stage-0").mkdir()
    assert while_running() == 4
    assert while_running() is None


def test_elastic_policy_raises_run_error_after_patience(policy):
    policy.nodes = {}
    policy.make_decision_for_non_running_worker_group()
    policy.rules.patience = 0.0
    with pytest.raises(RunError, match="no room for 1 worker"):
        policy.make_decision_for_non_running_worker_group()

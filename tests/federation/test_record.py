"""The record in federation.json."""

import pytest

from ganseg_dist.errors import RunError
from ganseg_dist.federation.record import FederationRecord
from ganseg_dist.runs import Run
from tests.federation.record import federation_json


def test_federation_record_counts_rounds_sites_and_bytes():
    record = FederationRecord.model_validate(federation_json())
    assert record.names == ("north", "south")
    assert record.epochs_done == (2, 5, 6)
    assert list(record.of_site("north")) == [1, 2, 3]
    assert list(record.of_site("south")) == [1, 3]
    assert [left.round for left in record.left_out("south")] == [2]
    assert record.left_out("north") == ()
    assert record.bytes_moved == 3 * 2000 + 5 * 500
    assert record.epsilon is None


def test_federation_record_lists_site_that_was_always_left_out():
    left_out = {"site": "east", "round": 1, "reason": "the site failed"}
    record = FederationRecord.model_validate(federation_json(quarantined=[left_out], sites={}))
    assert record.names == ("east", "north", "south")
    assert record.of_site("east") == {}


def test_federation_record_epsilon_is_that_of_last_private_round():
    rounds = federation_json()["rounds"]
    for kept, epsilon in zip(rounds, (1.0, 1.5, None), strict=True):
        kept["epsilon"] = epsilon
    assert FederationRecord.model_validate(federation_json(rounds=rounds)).epsilon == 1.5


def test_run_federation_reads_record_and_names_damage(tmp_path):
    run = Run(tmp_path)
    assert run.federation() is None
    run.write("federation.json", federation_json(newer="let through"))
    assert run.federation() == FederationRecord.model_validate(federation_json())
    broken = federation_json()
    del broken["rounds"][1]["sites"]["north"]["weight"]
    run.write("federation.json", broken)
    with pytest.raises(RunError, match=r"federation\.json: rounds\.1\.sites\.north\.weight: Field required"):
        run.federation()

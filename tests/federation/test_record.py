"""What is read of federation.json."""

import pytest

from ganseg_dist.errors import RunError
from ganseg_dist.federation.record import FederationRecord
from ganseg_dist.runs import Run
from tests.federation.record import told


def test_rounds_sites_and_bytes_are_counted():
    record = FederationRecord.model_validate(told())
    assert record.names == ("north", "south")
    assert record.epochs_done == (2, 5, 6)
    assert list(record.of_site("north")) == [1, 2, 3]
    assert list(record.of_site("south")) == [1, 3]
    assert [left.round for left in record.left_out("south")] == [2]
    assert record.left_out("north") == ()
    assert record.bytes_moved == 3 * 2000 + 5 * 500
    assert record.epsilon is None


def test_a_site_that_was_only_ever_left_out_is_one_all_the_same():
    left_out = {"site": "east", "round": 1, "reason": "the site failed"}
    record = FederationRecord.model_validate(told(quarantined=[left_out], sites={}))
    assert record.names == ("east", "north", "south")
    assert record.of_site("east") == {}


def test_the_privacy_spent_is_the_last_rounds():
    rounds = told()["rounds"]
    for kept, epsilon in zip(rounds, (1.0, 1.5, None), strict=True):
        kept["epsilon"] = epsilon
    assert FederationRecord.model_validate(told(rounds=rounds)).epsilon == 1.5


def test_a_run_has_it_or_has_none_and_damage_is_named(tmp_path):
    run = Run(tmp_path)
    assert run.federation() is None
    run.write("federation.json", told(newer="let through"))
    assert run.federation() == FederationRecord.model_validate(told())
    broken = told()
    del broken["rounds"][1]["sites"]["north"]["weight"]
    run.write("federation.json", broken)
    with pytest.raises(RunError, match=r"federation\.json: rounds\.1\.sites\.north\.weight: Field required"):
        run.federation()

"""Which requests resume a run."""

from pathlib import Path

import pytest

from ganseg_dist.config import override
from ganseg_dist.data.cohort import Cohort, Split
from ganseg_dist.errors import RunError
from ganseg_dist.planning.run_folder import open_run, update_config
from ganseg_dist.systems import recipe
from tests.data.records import data_record

CONFIG = recipe("ganet_seg_debug")
COHORT = Cohort(Path("nowhere"), "manifest", ())
SPLIT = Split(("a",), ("b",), ())
DATA = data_record(("a", "a"), ("b", "b"))

pytestmark = pytest.mark.usefixtures("own_runs")


def open_and_update(changes=None, data=DATA, split=SPLIT):
    config = override(CONFIG, changes or {})
    run, _ = open_run("r", config, data, COHORT, split=split)
    update_config(run, config)
    return run


def test_open_run_resumes_with_operational_fields_changed_and_records_them(caplog):
    open_and_update()
    assert open_and_update({"train.threads": 2, "train.loaders": 1}).config().train.threads == 2
    (message,) = caplog.messages
    changes = "train.loaders was 0, is 1; train.threads was 1, is 2"
    assert message == f"r: resumes with another config ({changes}); it changes no result"
    assert open_and_update().config() == CONFIG


def test_open_run_rejects_other_fields_and_names_those_that_may_change():
    open_and_update()
    with pytest.raises(RunError) as rejected:
        open_and_update({"train.epochs": 9, "train.learning_rate": 1.0, "train.threads": 2})
    assert str(rejected.value) == (
        "r: was started with another config (train.epochs was 3, is 9, which changes the result; train.threads was 1, "
        "is 2, which may change); choose another --run-name"
    )


def test_open_run_reports_other_data_before_the_split_that_follows_from_them():
    open_and_update()
    with pytest.raises(RunError, match="r: was started with another split"):
        open_and_update(split=Split(("b",), ("a",), ()))
    with pytest.raises(RunError, match="r: was started on other data"):
        open_and_update(data=data_record(("c", "c")), split=Split(("c",), (), ()))

"""A study's request, compared with that of its folder."""

import pytest

from ganseg_dist.errors import RunError
from ganseg_dist.runs import named_run
from ganseg_dist.studies.study import Study

SWEEP = {"kind": "sweep", "trials": 6, "search": "random"}


@pytest.mark.usefixtures("own_runs")
@pytest.mark.parametrize(("field", "value"), [("trials", 9), ("search", "optuna")])
def test_study_of_sweep_rejects_other_request_once_a_trial_has_begun(field, value):
    study = Study.of_request(named_run("s"), SWEEP)
    study.begin()
    Study.of_request(named_run("s"), SWEEP | {field: value})
    (study.folder / "tune").mkdir()
    Study.of_request(named_run("s"), SWEEP)
    with pytest.raises(RunError, match=f"^s: was started with another {field}; choose another --run-name$"):
        Study.of_request(named_run("s"), SWEEP | {field: value})

"""What a trial leaves behind for its table."""

import json
from dataclasses import asdict

import pytest

from ganseg_dist.atomic import write_json
from ganseg_dist.errors import RunError
from ganseg_dist.experiments.run import Outcome, _begin, _read
from ganseg_dist.inference.evaluation import CaseRow
from ganseg_dist.runs import named_run


@pytest.mark.parametrize("known", [True, False])
def test_an_outcome_is_read_as_it_was_written(known, tmp_path):
    kept = Outcome({"arm": "cnn", "seed": 0}, 2.0, (CaseRow("c", "p", "x", {"correct": 1.0}),), known)
    file = tmp_path / "trial.json"
    file.write_text(json.dumps(asdict(kept)))
    assert _read(file) == kept


def test_an_outcome_that_says_nothing_of_its_patients_is_of_known_ones(tmp_path):
    file = tmp_path / "trial.json"
    file.write_text(json.dumps({"labels": {}, "seconds": 1.0, "rows": []}))
    assert _read(file).patients_known


def test_an_experiment_is_of_one_label_scheme(tmp_path, own_runs):
    found = named_run("e")
    _begin(found, "folds", [], tmp_path, "brats")
    write_json(found.folder / "trials" / "first.json", {})
    _begin(found, "folds", [], tmp_path, "brats")
    with pytest.raises(RunError, match="labels was brats, is brats2023"):
        _begin(found, "folds", [], tmp_path, "brats2023")

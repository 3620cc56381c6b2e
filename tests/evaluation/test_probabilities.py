"""Kept probabilities: equal to predicting again, specific to the model, and rejected when damaged."""

import numpy as np
import pytest

from ganseg_dist.data.nesting import regions_at
from ganseg_dist.errors import RunError
from ganseg_dist.evaluation.arms import ModelArm
from ganseg_dist.evaluation.probabilities import keep_probabilities, read_probabilities
from ganseg_dist.evaluation.segmentation import evaluate
from ganseg_dist.inference.model_folder import Thresholds
from ganseg_dist.inference.predictor import Predictor
from ganseg_dist.metrics.segmentation import case_scores
from tests.inference.untrained import model_folder

REGIONS = ("wt", "tc")


@pytest.fixture
def model(tmp_path):
    return model_folder(tmp_path / "model", ("t1", "flair"), REGIONS, thresholds=Thresholds({"wt": 0.45, "tc": 0.55}))


def keep(tmp_path, model, cases, weights="a"):
    folder = tmp_path / "kept"
    keep_probabilities(folder, Predictor.load(model), weights, cases)
    return folder


def test_read_probabilities_scores_equal_evaluate(tmp_path, model, cohort):
    cases = [case for case in cohort.cases if case.mask is not None][:2]
    rows = evaluate([ModelArm("m", "model", Predictor.load(model))], cases, "test").rows["m"]
    for case, row in zip(read_probabilities(keep(tmp_path, model, cases)), rows, strict=True):
        masks = regions_at(case.probability, (0.45, 0.55), ((0, 1), (1,)))
        predicted = np.stack([case.whole(mask) for mask in masks])
        truth = np.stack([case.whole(mask) for mask in case.truth])
        assert case_scores(predicted, truth, REGIONS, case.spacing_mm) == {
            name: value
            for name, value in row.scores.items()
            if name.split("/")[0] in REGIONS and not name.endswith("foreground_specificity")
        }
        assert len(case.score) == len(case.abnormal) > 0


def test_keep_probabilities_reuses_predictions_of_same_model(tmp_path, model, cohort):
    cases = [case for case in cohort.cases if case.mask is not None][:1]
    written = (keep(tmp_path, model, cases) / "0000.safetensors").stat().st_mtime_ns
    assert (keep(tmp_path, model, cases) / "0000.safetensors").stat().st_mtime_ns == written
    assert (keep(tmp_path, model, cases, "b") / "0000.safetensors").stat().st_mtime_ns > written


@pytest.mark.parametrize("damage", ["flipped", "cut", "emptied", "removed"])
@pytest.mark.parametrize("name", ["0000.safetensors", "index.json"])
def test_damaged_probabilities_are_named_and_predicted_again(tmp_path, model, cohort, caplog, name, damage):
    cases = [case for case in cohort.cases if case.mask is not None][:1]
    file = keep(tmp_path, model, cases) / name
    whole = file.read_bytes()
    file.unlink()
    if damage != "removed":
        flipped = whole[:-40] + bytes([whole[-40] ^ 1]) + whole[-39:]
        file.write_bytes({"flipped": flipped, "cut": whole[: len(whole) // 2], "emptied": b""}[damage])
    with pytest.raises(RunError) as caught:
        read_probabilities(file.parent)
    assert str(caught.value).startswith(f"{file}: is {'missing' if damage == 'removed' else 'damaged'}")
    assert str(caught.value).endswith(f"; delete {file.parent} and search again")
    keep(tmp_path, model, cases)
    assert file.read_bytes() == whole
    warned = [] if (name, damage) == ("index.json", "removed") else [str(file)]
    assert [line.split(":")[0] for line in caplog.messages if "predicted again" in line] == warned

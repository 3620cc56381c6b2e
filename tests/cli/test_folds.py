"""The folds of a cross-validation as one ensemble."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest

from ganseg_dist.atomic import write_json
from ganseg_dist.config import override
from ganseg_dist.digests import read_sealed, sealed
from ganseg_dist.inference.model_folder import WEIGHTS, Thresholds, load_model, write_model, write_thresholds
from ganseg_dist.runs import RUN_FORMAT
from tests.cli.conftest import Result, assert_error, run_command, snapshot
from tests.cli.test_bad_input import CASE

FOLDS = ("fold1", "fold2", "fold3")
WORDS = ("--folds", 3, "--local", "--set", "train.epochs=1", "--set", "system.healthy_epochs=1",
         "--set", "system.supervised_epochs=0", "--set", "train.batch_size=16", "--run-name", "cv")  # fmt: skip
MASK = f"{CASE}_mask.nii.gz"


@pytest.fixture(scope="module")
def folds_result(phantom, workplace) -> Result:
    """`ganseg experiment folds`, once; copy its runs, do not change them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GANSEG_RUNS", str(workplace / "crossed"))
        patch.setenv("GANSEG_STORE", str(workplace / "store"))
        patch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        result = run_command("experiment", "folds", "ganet_seg_debug", "--data", phantom, *WORDS)
    assert result.code == 0, result.err
    return result


@pytest.fixture
def runs(folds_result, workplace, tmp_path):
    """A copy of the runs to change."""
    shutil.copytree(workplace / "crossed", tmp_path / "runs")
    return tmp_path / "runs"


def voxels(file):
    return np.asarray(nib.load(file).dataobj)


@pytest.mark.slow
def test_experiment_folds_prints_predict_as_next_command(folds_result):
    assert folds_result.out.splitlines()[-1] == "next: ganseg predict cv INPUT --out DIR"


def test_predict_help_describes_folds(ganseg):
    text = " ".join(ganseg("predict", "--help").out.split())
    assert "With the name of a ganseg experiment folds as RUN, its folds predict together" in text


def test_predict_averages_probabilities_and_thresholds_of_folds(ganseg, runs, phantom, tmp_path):
    thresholds = {"fold1": 0.1, "fold2": 0.2, "fold3": 0.6}
    for fold, threshold in thresholds.items():
        write_thresholds(runs / f"cv.{fold}" / "model", Thresholds({"wt": threshold, "tc": 1.0, "et": 1.0}))
    for name in ("cv", *(f"cv.{fold}" for fold in FOLDS)):
        args = ("predict", name, phantom / CASE, "--out", tmp_path / name, "--probability", "--anomaly")
        result = ganseg(*args)
        assert result.code == 0, result.err
    for part in ("probability_wt", "probability_et", "anomaly"):
        whole, *folds = (
            voxels(tmp_path / name / f"{CASE}_{part}.nii.gz") for name in ("cv", *(f"cv.{fold}" for fold in FOLDS))
        )
        assert np.allclose(whole, np.mean(folds, axis=0), atol=1e-5)
        assert not np.allclose(whole, folds[0], atol=1e-3)
    probability = voxels(tmp_path / "cv" / f"{CASE}_probability_wt.nii.gz")
    mask = voxels(tmp_path / "cv" / MASK) > 0
    clear = np.abs(probability - 0.3) > 1e-4
    assert np.array_equal(mask[clear], probability[clear] >= 0.3), "the mean of the folds' thresholds"
    assert 0 < mask.sum() < mask.size


def test_export_writes_folds_as_one_ensemble_folder(ganseg, runs, phantom, tmp_path):
    assert ganseg("predict", "cv", phantom / CASE, "--out", tmp_path / "here").code == 0
    result = ganseg("export", "cv", tmp_path / "carried")
    assert (result.code, result.out) == (0, f"exported: {tmp_path / 'carried'}\n"), result.err
    assert {file.name for file in (tmp_path / "carried").iterdir()} == {"ensemble.json", *FOLDS}
    patients = {case["patient"] for case in json.loads((runs / "cv.fold1" / "data.json").read_text())["cases"]}
    for name, content in snapshot(tmp_path / "carried").items():
        for secret in (*patients, str(phantom), str(runs)):
            assert secret.encode() not in content, f"{secret} is in {name}"
    assert ganseg("export", tmp_path / "carried", tmp_path / "again").code == 0
    shutil.rmtree(runs)
    shutil.rmtree(tmp_path / "carried")
    assert ganseg("predict", tmp_path / "again", phantom / CASE, "--out", tmp_path / "there").code == 0
    assert (tmp_path / "there" / MASK).read_bytes() == (tmp_path / "here" / MASK).read_bytes()


def test_folds_reject_reconstruction_onnx_evaluate_and_calibrate(ganseg, runs, phantom, tmp_path):
    result = ganseg("predict", "cv", phantom / CASE, "--out", tmp_path / "masks", "--reconstruction")
    assert_error(result, 2, "--reconstruction: cv is 3 models", runs / "cv.fold1" / "model")
    assert_error(ganseg("export", "cv", tmp_path / "out", "--onnx"), 2, "--onnx", runs / "cv.fold1" / "model")
    result = ganseg("evaluate", "cv", "--data", phantom)
    assert_error(result, 1, "cv: every patient", "some fold's training patient", runs / "cv" / "table.csv")
    assert (runs / "cv" / "table.csv").is_file()
    assert_error(ganseg("calibrate", "cv"), 1, "cv: is an experiment of folds", "give a run, such as cv.fold1")


def test_commands_reject_experiment_in_place_of_run(ganseg, runs, phantom):
    before = snapshot(runs)
    folder = runs / "cv"
    for words in (("report", "cv"), ("report", folder), ("synthesize", "cv", "--out", runs.parent / "images")):
        results = f"in {folder / 'table.csv'} and {folder / 'figure.png'}"
        assert_error(ganseg(*words), 1, "cv: is an experiment of folds", "such as cv.fold1", results)
    train = ("train", "ganet_seg_debug", "--data", phantom, "--local", "--run-name", "cv")
    for words in (train, (*train, "--dry-run")):
        assert_error(ganseg(*words), 1, f"{folder}: is an experiment, not a run; choose another --run-name")
    assert_error(ganseg("train", "--resume", "cv"), 1, f"{folder}: is an experiment", "the command that started it")
    assert snapshot(runs) == before
    (folder / "table.csv").unlink()
    assert_error(ganseg("report", "cv"), 1, "it is unfinished, rerun the same ganseg experiment folds command")


@pytest.mark.parametrize(
    "command", [("predict", "INPUT", "--out", "OUT"), ("export", "OUT"), ("evaluate", "--data", "INPUT")]
)
def test_commands_reject_experiment_with_missing_fold(ganseg, runs, phantom, tmp_path, command):
    (runs / "cv" / "trials" / "fold2.json").unlink()
    places = {"INPUT": phantom, "OUT": tmp_path / "out"}
    name, *words = (places.get(word, word) for word in command)
    result = ganseg(name, "cv", *words)
    assert_error(result, 1, "cv: lacks fold2 of 3 folds", "rerun the same ganseg experiment folds command")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_experiment_folds_recomputes_missing_fold(ganseg, folds_result, runs, phantom, tmp_path):
    outcome = runs / "cv" / "trials" / "fold2.json"
    before = json.loads(outcome.read_text())["rows"]
    outcome.unlink()
    again = ganseg("experiment", "folds", "ganet_seg_debug", "--data", phantom, *WORDS)
    assert again.code == 0, again.err
    assert again.out.splitlines()[-1] == folds_result.out.splitlines()[-1]
    assert json.loads(outcome.read_text())["rows"] == before
    assert ganseg("predict", "cv", phantom / CASE, "--out", tmp_path / "masks").code == 0


def test_predict_rejects_fold_without_model(ganseg, runs, phantom, tmp_path):
    shutil.rmtree(runs / "cv.fold3")
    result = ganseg("predict", "cv", phantom, "--out", tmp_path / "masks")
    assert_error(result, 1, "cv: fold3 has no model", runs / "cv" / "trials" / "fold3.json")


def test_predict_rejects_fold_of_other_config(ganseg, runs, phantom, tmp_path):
    folder = runs / "cv.fold2" / "model"
    model = load_model(folder)
    other, facts = override(model.config, {"data.spacing_mm": 9.0}), {"channels": list(model.channels)}
    write_model(folder, other, folder / WEIGHTS, model.scheme, card="", facts=facts, thresholds=model.thresholds)
    result = ganseg("predict", "cv", phantom, "--out", tmp_path / "masks")
    assert_error(result, 1, "fold2: has data.spacing_mm 9.0, and fold1")


@pytest.mark.parametrize("trial", ["../../other", "/models/other", "a/b", ""])
def test_predict_rejects_path_as_fold_name(ganseg, runs, phantom, tmp_path, trial):
    file = runs / "cv" / "study.json"
    study = read_sealed(file)
    write_json(file, sealed(study | {"trials": study["trials"] | {trial: {}}}))
    result = ganseg("predict", "cv", phantom, "--out", tmp_path / "m")
    assert_error(result, 1, f"{file}: trial {trial!r} names no file; restore it")


def test_predict_and_export_reject_experiment_of_other_kind(ganseg, runs, phantom, tmp_path):
    file = runs / "cv" / "study.json"
    write_json(file, sealed(read_sealed(file) | {"kind": "fractions"}))
    for result in (ganseg("predict", "cv", phantom, "--out", tmp_path / "m"), ganseg("export", "cv", tmp_path / "m")):
        assert_error(result, 1, "cv: is an experiment of fractions, and only folds make an ensemble")
    assert_error(ganseg("evaluate", "cv", "--data", phantom), 1, "cv: is an experiment of fractions", "cv.fold1")
    write_json(file, sealed({"kind": "folds", "format": RUN_FORMAT}))
    assert_error(ganseg("predict", "cv", phantom, "--out", tmp_path / "m"), 1, file, "restore it")

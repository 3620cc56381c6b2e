import os
import subprocess
import sys
from pathlib import Path

import mlflow
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from ganseg_dist.data.scan import load_scan
from ganseg_dist.errors import DataError
from ganseg_dist.inference.inputs import read_inputs
from ganseg_dist.inference.model_folder import Thresholds, read_thresholds, write_thresholds
from ganseg_dist.inference.predictor import Predictor
from ganseg_dist.tracking.pyfunc import ModelUpload, pack
from ganseg_dist.tracking.results import log_calibration
from ganseg_dist.tracking.tracked_run import open_tracking
from tests.modes import odd_modes

SHAPE = (24, 20, 5)


@pytest.fixture
def scan_file(tmp_path: Path) -> Path:
    """A head of two modalities in one NIfTI file."""
    rng = np.random.default_rng(0)
    voxels = np.zeros((*SHAPE, 2), np.float32)
    voxels[4:20, 4:16] = rng.uniform(100, 900, (16, 12, 5, 2))
    nib.save(nib.Nifti1Image(voxels, np.diag([2.0, 2.0, 4.0, 1.0])), tmp_path / "head.nii.gz")
    return tmp_path / "head.nii.gz"


@pytest.fixture
def median_threshold(run, scan_file: Path) -> None:
    """A threshold that makes the untrained model segment half of the head, so that no mask is empty."""
    predictor = Predictor.load(run.model)
    (case,) = read_inputs(scan_file, predictor.modalities)
    probability = predictor.predict_scan(load_scan(case, predictor.modalities)).probability
    write_thresholds(run.model, Thresholds({"wt": float(np.median(probability[:, 4:20, 4:16]))}))


def expected(model: Path, scan_file: Path) -> np.ndarray:
    predictor = Predictor.load(model)
    (case,) = read_inputs(scan_file, predictor.modalities)
    return predictor.predict_scan(load_scan(case, predictor.modalities)).regions


@pytest.mark.usefixtures("median_threshold")
def test_pyfunc_model_predicts_paths_like_predictor(run, scan_file, tmp_path):
    pack(run.model, tmp_path / "packed")
    model = mlflow.pyfunc.load_model(str(tmp_path / "packed"))
    predicted = model.predict(pd.DataFrame({"path": [str(scan_file)] * 2}))
    assert list(predicted["case"]) == ["head", "head"]
    assert predicted["regions"][0] == ("wt",)
    mask = predicted["mask"][1]
    assert mask.shape == (1, *SHAPE)
    np.testing.assert_array_equal(mask, expected(run.model, scan_file))
    assert 0 < mask.mean() < 1
    np.testing.assert_array_equal(predicted["labels"][1], mask[0])
    assert model.metadata.metadata["labels"]["labels"] == {"background": 0, "whole tumour": 1}


def test_pyfunc_model_predicts_arrays_and_rejects_invalid_ones(run, tmp_path):
    pack(run.model, tmp_path / "packed")
    model = mlflow.pyfunc.load_model(str(tmp_path / "packed"))
    slices = np.random.default_rng(0).uniform(0, 900, (6, 2, 40, 30)).astype(np.float32)
    masks = model.predict(slices)
    assert masks.shape == (6, 1, 40, 30)
    assert masks.dtype == bool
    damaged = slices.copy()
    damaged[3, 0, 5, 5] = np.nan
    with pytest.raises(DataError, match="1 voxels that are NaN"):
        model.predict(damaged)
    for wrong, named in ((slices[:, :1], r"t1, flair"), (pd.DataFrame({"file": ["x"]}), "column path")):
        with pytest.raises(DataError, match=named):
            model.predict(wrong)


def test_pack_writes_code_and_no_pickle(run, tmp_path):
    pack(run.model, tmp_path / "packed")
    files = {file.relative_to(tmp_path / "packed").as_posix() for file in (tmp_path / "packed").rglob("*.*")}
    assert {"code/ganseg_dist/inference/predictor.py", "artifacts/model/model.json"} <= files
    assert not [file for file in files if file.endswith((".pkl", ".pyc"))]
    requirements = (tmp_path / "packed" / "requirements.txt").read_text()
    assert "torch==" in requirements
    assert "+" not in requirements


@pytest.mark.slow
@pytest.mark.usefixtures("median_threshold")
def test_pack_applies_umask(umask, run, tmp_path):
    """The artifact store keeps them, and the code's own are those of its installation."""
    pack(run.model, tmp_path / "packed")
    assert odd_modes(tmp_path / "packed", umask) == {}


@pytest.mark.slow
def test_log_results_makes_model_loadable_in_other_process(run, scan_file, tmp_path):
    tracked = open_tracking(run)
    tracked.log_results(run)
    tracked.end("FINISHED")
    client = MlflowClient(tracked.uri)
    logged = client.get_run(tracked.run_id)
    (output,) = logged.outputs.model_outputs
    model = client.get_logged_model(output.model_id)
    assert model.status == "READY"
    assert model.tags["ganseg.phantom"] == "true"
    assert "history.json" in {file.path for file in client.list_artifacts(tracked.run_id)}
    code = f"""
import mlflow, pandas, numpy
for uri in ("models:/{output.model_id}", "runs:/{tracked.run_id}/model"):
    model = mlflow.pyfunc.load_model(uri)
    mask = model.predict(pandas.DataFrame({{"path": ["{scan_file}"]}}))["mask"][0]
    numpy.save("{tmp_path}/" + uri.partition(":")[0] + ".npy", mask)
"""
    environment = {**os.environ, "MLFLOW_TRACKING_URI": tracked.uri}
    subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, check=True, timeout=120)
    for name in ("models", "runs"):
        np.testing.assert_array_equal(np.load(tmp_path / f"{name}.npy"), expected(run.model, scan_file))


def test_model_upload_retry_creates_one_model(run, monkeypatch):
    tracked = open_tracking(run)
    client = MlflowClient(tracked.uri)
    upload = ModelUpload(tracked.run_id, run.model)
    with monkeypatch.context() as broken:
        broken.setattr(client, "log_model_artifacts", lambda *_: (_ for _ in ()).throw(ConnectionError()))
        with pytest.raises(ConnectionError):
            upload.send(client)
    model_id = upload.send(client)
    assert upload.send(client) == model_id
    (model,) = client.search_logged_models([tracked.experiment_id])
    assert model.model_id == model_id
    assert len(client.get_run(tracked.run_id).outputs.model_outputs) == 1


def test_log_calibration_logs_model_of_trial(run):
    tracked = open_tracking(run)
    run.describe(mlflow=tracked.to_dict(), sweep="search")
    tracked.log_results(run)
    client = MlflowClient(tracked.uri)
    assert client.search_logged_models([tracked.experiment_id]) == []
    assert "history.json" in {file.path for file in client.list_artifacts(tracked.run_id)}
    log_calibration(run)
    assert len(client.search_logged_models([tracked.experiment_id])) == 1


def test_log_calibration_replaces_model_of_training(run):
    tracked = open_tracking(run)
    run.describe(mlflow=tracked.to_dict())
    tracked.log_results(run)
    write_thresholds(run.model, Thresholds({"wt": 0.75}, calibrated_on=3))
    log_calibration(run)
    client = MlflowClient(tracked.uri)
    (output,) = client.get_run(tracked.run_id).outputs.model_outputs
    model = client.get_logged_model(output.model_id)
    folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=model.artifact_location))
    assert read_thresholds(folder / "artifacts" / "model") == Thresholds({"wt": 0.75}, calibrated_on=3)

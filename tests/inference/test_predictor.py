"""A prediction that is not finite is an error everywhere, because NaN would read as no tumour."""

import math

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from ganseg_dist.data.readers import read_cohort
from ganseg_dist.data.scan import load_scan
from ganseg_dist.errors import DataError, RunError
from ganseg_dist.evaluation.arms import ModelArm
from ganseg_dist.evaluation.calibration import calibrate
from ganseg_dist.evaluation.probabilities import keep_probabilities
from ganseg_dist.evaluation.segmentation import evaluate
from ganseg_dist.inference.ensemble import load_together
from ganseg_dist.inference.model_folder import Thresholds, load_model, write_model
from ganseg_dist.inference.predictor import Predictor, check_finite
from tests.cli.conftest import run_command
from tests.data.cohorts import slice_of_head, write_rows
from tests.inference.untrained import model_folder


@pytest.fixture
def manifest(tmp_path):
    """A grey picture of a head with a lesion."""
    mask = np.zeros((48, 48), np.uint8)
    mask[20:26, 20:26] = 1
    Image.fromarray(slice_of_head(0)).save(tmp_path / "head.png")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    row = {"case": "ada", "patient": "p", "flair": "head.png", "mask": "mask.png", "labels": "binary"}
    return write_rows(tmp_path / "list.csv", [row])


@pytest.fixture
def cases(manifest):
    return read_cohort(manifest).cases


@pytest.fixture
def overflowing(tmp_path):
    """A model folder whose weights are finite and whose activations are not."""
    finite = model_folder(tmp_path / "finite", ("flair",), ("wt",))
    weights = load_file(finite / "networks.safetensors")
    weights["segmenter.encoder.0.0.weight"].fill_(3e38)
    save_file(weights, tmp_path / "large.safetensors")
    model, folder, large = load_model(finite), tmp_path / "overflowing", tmp_path / "large.safetensors"
    write_model(folder, model.config, large, model.scheme, card="", facts={}, thresholds=Thresholds())
    return folder


def test_predict_scan_names_case_with_nan_probability(overflowing, cases):
    predictor = Predictor.load(overflowing)
    scan = load_scan(cases[0], ("flair",))
    with pytest.raises(DataError, match=r"^ada: the model's probability is NaN or infinite in \d+ of \d+ values; use"):
        predictor.predict_scan(scan)


def test_ensemble_predict_scan_rejects_nan_of_one_member(overflowing, cases, tmp_path):
    together = Predictor(load_together({"finite": tmp_path / "finite", "overflowing": overflowing}))
    with pytest.raises(DataError, match=r"^ada: the model's probability is NaN"):
        together.predict_scan(load_scan(cases[0], ("flair",)))


@pytest.mark.parametrize(
    "call",
    [
        lambda predictor, cases, folder: calibrate(predictor, cases),
        lambda predictor, cases, folder: evaluate([ModelArm("m", "model", predictor)], cases, "test"),
        lambda predictor, cases, folder: keep_probabilities(folder / "kept", predictor, "w", cases),
    ],
    ids=["calibrate", "evaluate", "search thresholds"],
)
def test_calibrate_evaluate_and_search_reject_nan_probability(overflowing, cases, tmp_path, call):
    with pytest.raises(DataError, match=r"^ada: the model's probability is NaN"):
        call(Predictor.load(overflowing), cases, tmp_path)
    assert not (tmp_path / "kept").exists()


def test_predict_command_writes_no_mask_and_exits_1_on_nan(overflowing, manifest, tmp_path):
    result = run_command("predict", overflowing, manifest, "--out", tmp_path / "masks")
    assert result.code == 1
    assert [line.partition(" the model's")[0] for line in result.errors] == ["error: ada:"]
    assert not (tmp_path / "masks").exists()


def test_predict_command_continues_with_other_cases_after_nan(tmp_path, manifest, monkeypatch):
    """The model gives NaN for the first of two cases."""
    lines = manifest.read_text().splitlines()
    manifest.write_text("\n".join([lines[0], lines[1], lines[1].replace("ada", "ben")]) + "\n")
    folder = model_folder(tmp_path / "finite", ("flair",), ("wt",))
    predict_prepared, images = Predictor.predict_prepared, []

    def nan_at_first(self, image):
        prediction = predict_prepared(self, image)
        images.append(image)
        if len(images) == 1:
            prediction.probability[0, 0, 3, 3] = math.nan
        return prediction

    monkeypatch.setattr(Predictor, "predict_prepared", nan_at_first)
    result = run_command("predict", folder, manifest, "--out", tmp_path / "masks")
    assert result.code == 1
    assert [line.split(";")[0] for line in result.errors] == [
        "error: ada: the model's probability is NaN or infinite in 1 of 1024 values"
    ]
    assert [file.name for file in (tmp_path / "masks").iterdir()] == ["ben_mask.png"]


def test_served_model_rejects_nan_probability(overflowing, tmp_path):
    served = pytest.importorskip("ganseg_dist.tracking.served_model")
    model = served.SegmentationModel()
    model.predictor = Predictor.load(overflowing)
    with pytest.raises(DataError, match=r"^the array: the model's probability is NaN"):
        model.predict(None, slice_of_head(0)[None, None].astype(np.float32))


def test_export_onnx_deletes_file_that_gives_nan(overflowing, tmp_path):
    for package in ("onnxruntime", "onnxscript"):
        pytest.importorskip(package, reason="comes with pip install 'ganseg-dist[onnx]'")
    from ganseg_dist.inference.onnx_export import export_onnx

    with pytest.raises(RunError, match=r"segmenter\.onnx: ONNX Runtime differs from PyTorch by nan; not kept"):
        export_onnx(Predictor.load(overflowing), tmp_path / "segmenter.onnx")
    assert not (tmp_path / "segmenter.onnx").exists()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_check_finite_counts_non_finite_values(value):
    check_finite("ada", "score", [0.0, 1.0])
    check_finite("ada", "score", np.zeros((0, 3), np.float32))
    with pytest.raises(DataError, match=r"^ada: the model's score is NaN or infinite in 2 of 3 values; "):
        check_finite("ada", "score", [value, 0.5, value])

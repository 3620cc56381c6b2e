"""`ganseg calibrate`, `evaluate`, `report` and `export` on a finished run."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ganseg_dist.data.labels import BRATS
from ganseg_dist.inference.model_folder import Thresholds, write_thresholds
from tests.cli.conftest import assert_error, copied, snapshot, untrained_run
from tests.data.cohorts import read_rows

PLAIN = ("--set", "system.gan=false")


def test_evaluate_scores_test_patients_and_baselines(ganseg, run, phantom):
    result = ganseg("evaluate", "tiny", "--data", phantom)
    assert result.code == 0, result.err
    folder = run.evaluation("test")
    cases, summary = read_rows(folder / "cases.csv"), json.loads((folder / "summary.json").read_text())
    assert {case["patient"] for case in cases} == set(run.split().test)
    assert [row["name"] for row in summary["rows"]] == ["tiny", "FLAIR threshold"]
    for region in ("wt", "tc", "et"):
        dice = summary["rows"][0]["scores"][f"{region}/dice"]
        by_hand = [float(case[f"{region}/dice"]) for case in cases]
        assert dice["mean"] == pytest.approx(sum(by_hand) / len(by_hand), abs=1e-6)  # rounded in the table
        assert dice["low"] <= dice["mean"] <= dice["high"]
        assert dice["n"] == len(by_hand)
    assert [pair["score"] for pair in summary["paired"]] == ["wt/dice"]
    assert summary["detection"]["n_slices"] == sum(
        summary["detection"]["rows"][0][name] for name in ("tp", "fp", "tn", "fn")
    )
    assert (folder / "thresholds.csv").exists()
    assert "tiny less FLAIR threshold, wt/dice" in result.out


@pytest.mark.slow
def test_evaluate_adds_plain_unet_of_same_split(ganseg, run, phantom):
    assert ganseg("train", "ganet_seg_debug", "--data", phantom, "--local", "--run-name", "plain", *PLAIN).code == 0
    assert ganseg("evaluate", "tiny", "--data", phantom).code == 0
    summary = run.read("evaluation/test/summary.json")
    assert [row["kind"] for row in summary["rows"]] == ["model", "comparison", "baseline"]
    assert summary["rows"][1]["name"] == "plain"
    assert ganseg("evaluate", "plain", "--data", phantom).code == 0  # and alone it has no discriminator to show
    assert json.loads((run.folder.parent / "plain/evaluation/test/summary.json").read_text())["detection"] is None


def test_evaluate_replaces_earlier_evaluation_with_same_results(ganseg, run, phantom):
    ganseg("evaluate", "tiny", "--data", phantom)
    first = snapshot(run.evaluation("test"))
    (run.evaluation("test") / "stale.csv").write_text("from an older version")
    ganseg("evaluate", "tiny", "--data", phantom)
    second = snapshot(run.evaluation("test"))
    first.pop("gallery.npz"), second.pop("gallery.npz")  # a zip holds the time it was made
    assert first == second


def test_evaluate_rejects_training_patients(ganseg, run, phantom):
    before = snapshot(run.folder)
    result = ganseg("evaluate", "tiny", "--data", phantom, "--part", "all")
    assert_error(result, 1, "tiny: was trained on", "--part test")
    assert snapshot(run.folder) == before


def test_calibrate_stores_thresholds_for_evaluate(ganseg, run, phantom):
    result = ganseg("calibrate", "tiny")
    assert result.code == 0, result.err
    stored = json.loads((run.model / "thresholds.json").read_text())
    assert stored["calibrated_on"] == len(run.split().validation)
    assert stored["regions"].keys() == {"wt", "tc", "et"}
    assert stored["realism"] is None or 0 <= stored["realism"] <= 1  # none: no abnormal slice to find it by
    assert f"wt: threshold {stored['regions']['wt']:.2f}" in result.out
    ganseg("evaluate", "tiny", "--data", phantom)
    summary = run.read("evaluation/test/summary.json")
    assert summary["thresholds"] == stored["regions"]
    assert summary["calibrated_on"] == stored["calibrated_on"]


def test_evaluate_applies_stored_thresholds(ganseg, run, phantom):
    sensitivity = []
    for threshold in (0.0, 1.0):
        write_thresholds(run.model, Thresholds(dict.fromkeys(("wt", "tc", "et"), threshold)))
        ganseg("evaluate", "tiny", "--data", phantom)
        rows = {row["case"]: row for row in read_rows(run.evaluation("test") / "cases.csv")}
        sensitivity.append(float(rows["BraTS20_Training_004"]["wt/sensitivity"]))
    assert sensitivity == [1.0, 0.0]


def test_report_shows_scores_of_evaluated_run(ganseg, run, phantom):
    ganseg("evaluate", "tiny", "--data", phantom)
    result = ganseg("report", "tiny")
    assert result.code == 0, result.err
    assert result.out.strip() == str(run.folder / "report.html")
    page = (run.folder / "report.html").read_text()
    dice = run.read("evaluation/test/summary.json")["rows"][0]["scores"]["wt/dice"]["mean"]
    assert f"{dice:.3f}" in page
    assert "phantom" in page


@pytest.mark.slow
def test_exported_model_predicts_without_ray_and_mlflow(ganseg, run, phantom, tmp_path):
    case = phantom / "BraTS20_Training_001"
    assert ganseg("predict", "tiny", case, "--out", tmp_path / "here").code == 0
    assert ganseg("export", "tiny", tmp_path / "model").code == 0
    assert {file.name for file in (tmp_path / "model").iterdir()} == {
        "networks.safetensors", "config.json", "thresholds.json", "card.md", "model.json"
    }  # fmt: skip
    without = "import sys; sys.modules |= dict.fromkeys(('ray', 'mlflow', 'flwr'))"
    alone = f"{without}; from ganseg_dist.cli.main import main; main()"
    args = ["predict", str(tmp_path / "model"), str(case), "--out", str(tmp_path / "there")]
    subprocess.run([sys.executable, "-c", alone, *args], check=True, capture_output=True)
    name = "BraTS20_Training_001_mask.nii.gz"
    assert (tmp_path / "there" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()


def test_export_contains_no_patient_names_or_paths(ganseg, run, phantom, tmp_path):
    ganseg("export", "tiny", tmp_path / "model")
    patients = [case["patient"] for case in run.read("data.json")["cases"]]
    for name, content in snapshot(tmp_path / "model").items():
        for secret in (*patients, str(phantom), str(run.folder)):
            assert secret.encode() not in content, f"{secret} is in {name}"


def test_export_rejects_symlink_out_of_model_folder(ganseg, trained, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(trained.model, model)
    (tmp_path / "id_rsa").write_text("secret")
    (model / "notes.txt").symlink_to(tmp_path / "id_rsa")
    result = ganseg("export", model, tmp_path / "carried")
    assert_error(result, 1, f"{model}: notes.txt is a link that leads outside; put the file itself there")
    assert not (tmp_path / "carried").exists()


def test_export_rejects_existing_folder(ganseg, run, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/notes.txt").write_text("mine")
    assert_error(ganseg("export", "tiny", tmp_path / "model"), 1, tmp_path / "model", "exists already")
    assert snapshot(tmp_path / "model") == {"notes.txt": b"mine"}


def test_export_onnx_matches_pytorch_output(ganseg, run, tmp_path):
    extra = "comes with pip install 'ganseg-dist[onnx]'"
    onnxruntime, _ = (pytest.importorskip(package, reason=extra) for package in ("onnxruntime", "onnxscript"))
    result = ganseg("export", "tiny", tmp_path / "model", "--onnx")
    assert result.code == 0, result.err
    assert (tmp_path / "model/segmenter.onnx").stat().st_size > 1000
    for secret in (str(Path(__file__).parents[2]), sys.prefix, "Traceback", "site-packages"):
        assert secret.encode() not in (tmp_path / "model/segmenter.onnx").read_bytes()
    session = onnxruntime.InferenceSession(tmp_path / "model/segmenter.onnx")
    stored = session.get_modelmeta().custom_metadata_map
    assert json.loads(stored["labels"]) == BRATS.to_json()
    assert json.loads(stored["regions"]) == ["wt", "tc", "et"]
    assert float(result.out.rsplit(" ", 1)[1]) < 1e-4


def test_evaluate_writes_into_folder_of_copied_run(ganseg, run, phantom, tmp_path):
    elsewhere = copied(run, tmp_path / "elsewhere" / "tiny")
    assert ganseg("evaluate", elsewhere.folder, "--data", phantom).code == 0
    assert elsewhere.evaluation("test").exists()
    assert not run.evaluation("test").exists()


def test_evaluate_ignores_plain_unet_of_other_config(ganseg, run, phantom):
    other = (*PLAIN, "--set", "train.epochs=1")
    assert ganseg("train", "ganet_seg_debug", "--data", phantom, "--local", "--run-name", "other", *other).code == 0
    assert ganseg("evaluate", "tiny", "--data", phantom).code == 0
    assert [row["kind"] for row in run.read("evaluation/test/summary.json")["rows"]] == ["model", "baseline"]


def test_evaluate_skips_case_excluded_from_training(ganseg, run, phantom):
    learnt_from = run.read("data.json")
    out = run.split().test[0]
    run.write("data.json", {**learnt_from, "cases": [case for case in learnt_from["cases"] if case["id"] != out]})
    ganseg("evaluate", "tiny", "--data", phantom)
    assert out not in {case["case"] for case in read_rows(run.evaluation("test") / "cases.csv")}


def test_evaluate_notes_calibrate_command_for_default_thresholds(ganseg, run, phantom):
    assert "choose them first with: ganseg calibrate tiny\n" in ganseg("evaluate", "tiny", "--data", phantom).err


def test_evaluate_rejects_cohort_without_masks(ganseg, run, kaggle, tmp_path):
    shutil.copytree(kaggle, tmp_path / "kaggle_3m", ignore=shutil.ignore_patterns("*_mask.tif"))
    result = ganseg("evaluate", "tiny", "--data", tmp_path / "kaggle_3m", "--part", "all")
    assert_error(result, 1, "no case has a mask, to score it by; give a cohort that has")
    assert "--part" not in result.errors[0]


def test_evaluate_rejects_classifier_beside_segmenter(ganseg, run, phantom, kaggle, tmp_path):
    untrained_run("gan_detector_debug", kaggle, tmp_path, "detector")
    result = ganseg("evaluate", "tiny", "--data", phantom, "--beside", "detector")
    assert_error(result, 2, "--beside detector: classifies, and tiny segments: they cannot be compared")


def test_evaluate_rejects_beside_run_trained_on_test_patients(ganseg, run, phantom):
    other = copied(run, run.folder.parent / "other")
    split = run.split()
    other.write("split.json", {"train": split.test, "validation": split.validation, "test": split.train})
    result = ganseg("evaluate", "tiny", "--data", phantom, "--beside", "other")
    assert_error(result, 1, "other: was trained on", "compare runs of one split, or")
    assert "--part test" not in result.errors[0]


def test_evaluate_and_calibrate_report_cohort_without_lesions(ganseg, run, bad_cohort, monkeypatch):
    """Sensitivity is undefined without lesions in the test patients; calibrate needs lesions in validation."""
    monkeypatch.setattr("ganseg_dist.cli.models._check_known_cases", lambda *_: None)
    for file in bad_cohort.glob("*/*_seg.nii.gz"):
        mask = nib.load(file)
        empty = nib.Nifti1Image(np.zeros(mask.shape, np.uint8), mask.affine)
        file.unlink()  # it is the phantom's own file
        nib.save(empty, file)
    result = ganseg("evaluate", "tiny", "--data", bad_cohort)
    assert result.code == 0, result.err
    assert "no test patient has WT: sensitivity is undefined" in result.out
    summary = run.read("evaluation/test/summary.json")
    assert summary["absent"] == ["wt", "tc", "et"]
    assert "wt/sensitivity" not in summary["rows"][0]["scores"]
    assert ganseg("report", "tiny").code == 0
    before = (run.model / "thresholds.json").read_bytes()
    rejected = ganseg("calibrate", "tiny", "--data", bad_cohort)
    assert_error(rejected, 1, "the masks of all", "validation cases are empty")
    assert (run.model / "thresholds.json").read_bytes() == before

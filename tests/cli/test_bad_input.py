"""Invalid input: one error line that names the file or field, a non-zero exit, and no file changed."""

import gzip
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tifffile
import torch

from ganseg_dist.cli.main import main
from tests.cli.conftest import assert_error, snapshot
from tests.fuzz.damage import replace

CASE = "BraTS20_Training_001"


def spoil(cohort: Path, how: str) -> str:
    """Break one file of one case; returns the file's name, or the case's where the file is gone."""
    flair = cohort / CASE / f"{CASE}_flair.nii.gz"
    mask = cohort / CASE / f"{CASE}_seg.nii.gz"
    match how:
        case "truncated":
            replace(flair, flair.read_bytes()[:2000])
        case "text":
            replace(flair, b"these are no voxels\n")
        case "empty file":
            replace(flair, b"")
        case "missing modality":
            flair.unlink()
            return CASE
        case "nan":
            image = nib.load(flair)
            voxels = image.get_fdata(dtype=np.float32)
            voxels[5, 5, 5] = np.nan
            save(flair, voxels, image.affine)
        case "flipped":
            image = nib.load(flair)
            save(flair, np.asarray(image.dataobj), image.affine @ np.diag([-1.0, 1, 1, 1]))
        case "mask shape":
            image = nib.load(mask)
            save(mask, np.asarray(image.dataobj)[:-2], image.affine)
            return mask.name
        case "labels":
            image = nib.load(mask)
            labels = np.asarray(image.dataobj).copy()
            labels[labels == 2] = 7
            save(mask, labels, image.affine)
            return mask.name
        case "truncated mask":
            replace(mask, mask.read_bytes()[:100])
            return mask.name
    return flair.name


def save(file: Path, voxels: np.ndarray, affine: np.ndarray) -> None:
    file.unlink()
    nib.save(nib.Nifti1Image(voxels, affine), file)


WAYS = (
    "truncated",
    "text",
    "empty file",
    "missing modality",
    "nan",
    "flipped",
    "mask shape",
    "labels",
    "truncated mask",
)


@pytest.mark.parametrize("how", WAYS)
def test_check_train_and_prepare_reject_broken_case(ganseg, bad_cohort, tmp_path, how):
    named = spoil(bad_cohort, how)
    checked = ganseg("check", bad_cohort)
    assert checked.code == 1
    assert any(line.startswith(f"error: {CASE}: ") and named in line for line in checked.out.splitlines())
    assert_error(ganseg("train", "ganet_seg_debug", "--data", bad_cohort, "--local"), 1, named, "--exclude-bad")
    assert_error(ganseg("prepare", bad_cohort, "--recipe", "ganet_seg_debug", "--local"), 1, named)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("how", ["nan", "flipped"])
def test_predict_rejects_nan_and_flipped_scan(ganseg, run, bad_cohort, tmp_path, how):
    named = spoil(bad_cohort, how)
    assert_error(ganseg("predict", "tiny", bad_cohort / CASE, "--out", tmp_path / "masks"), 1, named)
    assert not list(tmp_path.glob("masks/*"))


def test_check_json_reports_unknown_label(ganseg, bad_cohort):
    spoil(bad_cohort, "labels")
    checked = ganseg("check", bad_cohort, "--json")
    assert checked.code == 1
    (finding,) = [found for found in json.loads(checked.out)["findings"] if found["severity"] == "error"]
    assert (finding["case"], finding["check"]) == (CASE, "labels")
    assert "7" in finding["problem"]


@pytest.mark.parametrize("command", ["check", "prepare", "train", "predict", "evaluate", "calibrate"])
@pytest.mark.parametrize("place", ["nowhere", "empty", "notes.txt", "unknown"])
def test_commands_reject_path_without_cohort(ganseg, run, tmp_path, command, place):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("no images")
    (tmp_path / "unknown").mkdir()
    (tmp_path / "unknown" / "notes.txt").write_text("no images")
    before = snapshot(run.folder)
    path = tmp_path / place
    words = {
        "check": ["check", path],
        "prepare": ["prepare", path, "--local"],
        "train": ["train", "ganet_seg_debug", "--data", path, "--local"],
        "predict": ["predict", "tiny", path, "--out", tmp_path / "masks"],
        "evaluate": ["evaluate", "tiny", "--data", path],
        "calibrate": ["calibrate", "tiny", "--data", path],
    }[command]
    assert_error(ganseg(*words), 1, path)
    assert snapshot(run.folder) == before
    assert not (tmp_path / "masks").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nope", "--data", "COHORT"], "nope: no such recipe"),
        (["ganet_seg_debog", "--data", "COHORT"], "did you mean ganet_seg_debug?"),
        (["ganet_seg_debug", "--data", "COHORT", "--set", "train.epoch=3"], "train.epoch: no such field; did you mean"),
        (["ganet_seg_debug", "--data", "COHORT", "--set", "train.epochs=0"], "train.epochs:"),
        (["ganet_seg_debug", "--data", "COHORT", "--set", "train.epochs=many"], "train.epochs:"),
        (["ganet_seg_debug", "--data", "COHORT", "--set", "train.epochs=true"], "train.epochs:"),
        (
            ["ganet_seg_debug", "--data", "COHORT", "--set", "data.size=40", "--set", "system.widths=4,4,4,4,4"],
            "data.size:",
        ),
        (["ganet_seg_debug", "--data", "COHORT", "--set", "data.size=100"], "data.size:"),
        (["ganet_seg_debug", "--data", "COHORT", "--set", "train.learning_rate=nan"], "train.learning_rate:"),
        (["ganet_seg_debug", "--data", "COHORT", "--set", "data=3"], "data:"),
        (["ganet_seg_debug", "--data", "COHORT", "--set", "epochs"], "--set epochs: expected FIELD=VALUE"),
        (["ganet_seg_debug", "--data", "COHORT", "--local", "--set", "data.modalities=pet"], "data.modalities:"),
        (
            ["ganet_seg_debug", "--data", "COHORT", "--local", "--set", 'data.modalities=["pet"]'],
            "data.modalities: pet is not in",
        ),
        (
            ["ganet_seg_debug", "--data", "COHORT", "--local", "--set", "data.modalities=t1,t1"],
            "data.modalities: t1, t1 names one",
        ),
        (
            ["ganet_seg_debug", "--data", "COHORT", "--local", "--set", "data.regions=et,tc"],
            "data.regions: tc, et: lacks wt",
        ),
        (
            ["ganet_seg_debug", "--data", "COHORT", "--local", "--set", "system.healthy_modalities=pet,t1"],
            "system.healthy_modal",
        ),
        (["ganet_seg_debug", "--data", "COHORT", "--workers", "0"], "--workers"),
        (["ganet_seg_debug", "--data", "COHORT", "--workers", "3"], "--workers 3: do not divide train.batch_size 4"),
        (["ganet_seg_debug", "--data", "COHORT", "--workers", "2", "--local"], "--local: is one process"),
        (["ganet_seg_debug", "--data", "COHORT", "--least-workers", "0"], "--least-workers"),
        (
            ["ganet_seg_debug", "--data", "COHORT", "--workers", "2", "--least-workers", "4"],
            "--least-workers 4: is more than --workers 2; give --workers the most",
        ),
        (
            ["ganet_seg_debug", "--data", "COHORT", "--least-workers", "1"],
            "--least-workers 1: needs --workers, the most; give both",
        ),
        (
            ["ganet_seg_debug", "--data", "COHORT", "--workers", "4", "--least-workers", "3"],
            "--least-workers 3: so many, and fewer than 4, do not divide train.batch_size 4; lower it to 2",
        ),
        (["ganet_seg_debug", "--data", "COHORT", "--run-name", "../out"], "--run-name '../out'"),
        (["ganet_seg_debug", "--data", "COHORT", "--lokal"], "No such option"),
        (["ganet_seg_debug"], "give a recipe and --data"),
        (["--resume", "tiny", "--data", "COHORT"], "--resume tiny: takes everything from the run"),
        (["--resume", "tiny", "--workers", "2"], "--resume tiny: takes everything from the run"),
    ],
)
def test_train_rejects_invalid_options(ganseg, phantom, tmp_path, args, message):
    args = [str(phantom) if word == "COHORT" else word for word in args]
    assert_error(ganseg("train", *args), 2, message)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["frobnicate"], "No such command 'frobnicate'; see: ganseg --help"),
        (["evaluate", "tiny"], "Missing option '--data'; see: ganseg evaluate --help"),
        (["evaluate", "tiny", "--data", "x", "--part", "train"], "--part train: expected test, validation or all"),
        (["predict", "tiny", "x"], "Missing option '--out'"),
        (["phantom", "x", "--patients", "0"], "'--patients': 0 is not in the range"),
        (["phantom", "x", "--spacing-mm", "99"], "'--spacing-mm': 99.0 is not in the range"),
        (["phantom", "x", "--seed", "one"], "'--seed': 'one' is not a valid"),
        (["check", "x", "--recipe", "nope"], "nope: no such recipe"),
        (["prepare", "x", "--recipe", "nope"], "nope: no such recipe"),
        (["prepare", "x", "--set", "data.size=7"], "data.size:"),
    ],
)
def test_commands_reject_invalid_options(ganseg, args, message):
    assert_error(ganseg(*args), 2, message)


def test_check_lists_known_layouts_for_unknown_layout(ganseg, phantom):
    assert_error(ganseg("check", phantom, "--layout", "dicom"), 2, "dicom", "brats", "decathlon", "kaggle_lgg")


def test_check_reports_missing_slice_and_unread_folders(ganseg, kaggle, tmp_path):
    copy = tmp_path / "kaggle_3m"
    shutil.copytree(kaggle, copy)
    case, other = sorted(copy.iterdir())[:2]
    (case / f"{case.name}_4.tif").unlink()
    other.rename(copy / "patient2")
    (copy / "empty").mkdir()
    result = ganseg("check", copy)
    assert result.code == 1
    lines = result.out.splitlines()
    assert any(str(case) in line and "lacks slice 4 between 1 and 7" in line for line in lines)
    assert any(str(copy / "patient2") in line and "does not read" in line for line in lines)
    assert any(str(copy / "empty") in line and "is an empty folder" in line for line in lines)
    assert any("1 file lies beside the cases' own" in line and f"{case.name}_4_mask.tif" in line for line in lines)
    assert "1 error, 3 warnings" in lines[-1]


def test_check_reports_truncated_picture_in_one_line(ganseg, kaggle, tmp_path, capfd):
    copy = tmp_path / "kaggle_3m"
    shutil.copytree(kaggle, copy)
    case = sorted(copy.iterdir())[0]
    file = case / f"{case.name}_2.tif"
    file.write_bytes(file.read_bytes()[:300])
    result = ganseg("check", copy)
    assert result.code == 1
    (line,) = [line for line in result.out.splitlines() if line.startswith("error")]
    assert str(file) in line
    assert "is not a readable picture" in line
    assert "TiffPages" not in result.err + capfd.readouterr().err


@pytest.mark.parametrize("command", ["evaluate", "calibrate", "predict", "export", "report", "train"])
def test_commands_list_known_runs_for_unknown_run(ganseg, run, phantom, tmp_path, command):
    words = {
        "evaluate": ["nosuch", "--data", phantom],
        "calibrate": ["nosuch"],
        "predict": ["nosuch", phantom, "--out", tmp_path / "out"],
        "export": ["nosuch", tmp_path / "out"],
        "report": ["nosuch"],
        "train": ["--resume", "nosuch"],
    }[command]
    assert_error(ganseg(command, *words), 1, "nosuch: no such run", "tiny")
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_commands_reject_gpu_option_without_gpu(ganseg, run, phantom, tmp_path):
    results = [
        ganseg("train", "ganet_seg_debug", "--data", phantom, "--local", "--gpus"),
        ganseg("predict", "tiny", phantom, "--gpu", "--out", tmp_path / "out"),
        ganseg("evaluate", "tiny", "--data", phantom, "--gpu"),
        ganseg("calibrate", "tiny", "--gpu"),
    ]
    for result in results:
        assert_error(result, 1, "GPU: PyTorch finds none")


def test_phantom_rejects_foreign_output_folder(ganseg, tmp_path):
    pytest.importorskip("nilearn", reason="phantoms are made of nilearn's MNI152 maps")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("precious")
    assert_error(ganseg("phantom", tmp_path / "mine", "--patients", "2", "--sites", "1"), 1, tmp_path / "mine")
    assert snapshot(tmp_path / "mine") == {"notes.txt": b"precious"}


def test_main_reports_out_of_memory_in_one_line(ganseg, monkeypatch):
    def too_large(**_):
        torch.empty(2**50, dtype=torch.uint8)

    def too_large_for_a_gpu(**_):
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 90 GiB")

    for fails in (too_large, too_large_for_a_gpu):
        monkeypatch.setattr("ganseg_dist.cli.main.app", fails)
        assert_error(ganseg("train"), 1, "memory:", "train.batch_size", "data.size")


def test_main_reraises_other_runtime_error(monkeypatch):
    def fails(**_):
        raise RuntimeError("a bug")

    monkeypatch.setattr("ganseg_dist.cli.main.app", fails)
    with pytest.raises(RuntimeError, match="a bug"):
        main()


def test_predict_rejects_volume_larger_than_memory(ganseg, run, bad_cohort, tmp_path):
    """A damaged header may promise 70 TB."""
    flair = bad_cohort / CASE / f"{CASE}_flair.nii.gz"
    header = bytearray(352)
    huge = nib.Nifti1Header()
    huge.set_data_shape((32000, 32000, 32000))
    huge.set_data_dtype(np.int16)
    huge["magic"] = b"n+1"
    huge["vox_offset"] = 352
    header[:348] = huge.binaryblock
    replace(flair, gzip.compress(bytes(header)))
    assert_error(ganseg("predict", "tiny", bad_cohort / CASE, "--out", tmp_path / "masks"), 1)


def test_check_reports_empty_mask_of_segmenter_but_not_of_classifier(ganseg, kaggle, tmp_path):
    copy = tmp_path / "kaggle_3m"
    shutil.copytree(kaggle, copy)
    case = sorted(copy.iterdir())[0]
    for mask in case.glob("*_mask.tif"):
        tifffile.imwrite(mask, np.zeros_like(tifffile.imread(mask)))
    for recipe, warnings in (("ganet_seg_debug", 1), ("gan_detector_debug", 0)):
        message = ganseg("check", copy, "--recipe", recipe).out.splitlines()
        assert len([line for line in message if "the mask is empty" in line]) == warnings

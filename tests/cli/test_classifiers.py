"""Classifiers on the command line: class folders, slices with and without lesion, single pictures."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import assert_error, untrained_run
from tests.data.cohorts import read_rows, write_classes

SHORT = ("--set", "train.epochs=1", "--set", "train.batch_size=8", "--local")


@pytest.fixture(scope="session")
def classes(tmp_path_factory):
    """Discs and bars, 16 pictures each for training and 6 for testing."""
    root = tmp_path_factory.mktemp("classes") / "shapes"
    rng = np.random.default_rng(0)
    for part, count in (("Training", 16), ("Testing", 6)):
        for name in ("bar", "disc"):
            folder = root / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                rows, columns = np.mgrid[:48, :48] - 24
                inside = np.hypot(rows, columns) < 14 if name == "disc" else np.abs(rows) < 4 + number % 3
                pixels = (40 + 30 * rng.random((48, 48)) + 150 * inside).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{name}{number}.png")
    return root


@pytest.mark.parametrize("recipe", ["gan_detector_debug", "dl_gan_cnn_debug"])
def test_classifier_trains_evaluates_and_predicts_class_folders(ganseg, classes, tmp_path, recipe):
    trained = ganseg("train", recipe, "--data", classes, "--run-name", "shapes", *SHORT)
    assert trained.code == 0, trained.err
    assert trained.out.splitlines()[-1] == f"next: ganseg evaluate shapes --data {classes}"
    next_step = f"ganseg evaluate shapes --data {classes} chooses its operating point"
    assert_error(ganseg("calibrate", "shapes"), 2, "shapes: classifies", "no threshold to choose", next_step)
    scored = ganseg("evaluate", "shapes", "--data", classes)
    assert scored.code == 0, scored.err
    assert "shapes on 12 test patients" in scored.out
    folder = tmp_path / "runs" / "shapes" / "evaluation" / "test"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["classes"] == ["bar", "disc"]
    assert sum(map(sum, summary["scores"]["confusion"])) == 12
    assert summary["operating_point"]["calibrated_on"] > 0
    assert_elbow(summary, recipe)
    lines = read_rows(folder / "images.csv")
    assert {line["truth"] for line in lines} == {"bar", "disc"}
    reported = ganseg("report", "shapes")
    assert reported.code == 0, reported.err
    page = (tmp_path / "runs" / "shapes" / "report.html").read_text()
    assert "Confusion matrix" in page
    assert ("k = 3, chosen" in page) == (recipe == "dl_gan_cnn_debug")
    picture = classes / "Testing" / "disc" / "disc1.png"
    result = ganseg("predict", "shapes", picture, "--out", tmp_path / "out")
    assert result.code == 0, result.err
    (line,) = read_rows(tmp_path / "out" / "classes.csv")
    (known,) = [each for each in lines if each["case"].endswith("disc1")]
    assert float(line["p(disc)"]) == pytest.approx(float(known["p(disc)"]), abs=1e-5)
    assert_error(ganseg("predict", "shapes", picture, "--out", tmp_path / "out", "--overlays"), 2, "classes.csv")


def assert_elbow(summary, recipe):
    """Only DL-GAN-CNN starts from k-means and has an elbow; the sum within clusters falls with their number."""
    if recipe == "gan_detector_debug":
        assert summary["elbow"] == []
        return
    numbers, within = zip(*summary["elbow"], strict=True)
    assert numbers == tuple(range(1, 9))
    assert list(within) == sorted(within, reverse=True)
    assert within[7] < 0.2 * within[0]


def test_evaluate_omits_elbow_without_training_images(ganseg, classes, tmp_path):
    trained = ganseg("train", "dl_gan_cnn_debug", "--data", classes, "--run-name", "shapes", *SHORT)
    assert trained.code == 0, trained.err
    shutil.copytree(classes / "Testing", tmp_path / "unknown")
    for file in (tmp_path / "unknown").rglob("*.png"):
        file.rename(file.with_name(f"other-{file.name}"))
    scored = ganseg("evaluate", "shapes", "--data", tmp_path / "unknown", "--part", "all")
    assert scored.code == 0, scored.err
    summary = json.loads((tmp_path / "runs" / "shapes" / "evaluation" / "all" / "summary.json").read_text())
    assert summary["elbow"] == []
    reported = ganseg("report", "shapes")
    assert reported.code == 0, reported.err
    assert "Number of clusters" not in (tmp_path / "runs" / "shapes" / "report.html").read_text()


def test_evaluate_rejects_masked_cohort_without_classes_of_model(ganseg, classes, tmp_path):
    trained = ganseg("train", "gan_detector_debug", "--data", classes, "--run-name", "shapes", *SHORT)
    assert trained.code == 0, trained.err
    masked = tmp_path / "masked"
    masked.mkdir()
    lines = []
    for number in range(2):
        source = classes / "Testing" / "disc" / f"disc{number}.png"
        mask = Image.fromarray((np.asarray(Image.open(source)) > 150).astype(np.uint8) * 255)
        shutil.copy(source, masked / f"case{number}.png")
        mask.save(masked / f"mask{number}.png")
        lines.append(f"case{number},case{number},here,case{number}.png,mask{number}.png")
    (masked / "cohort.csv").write_text("\n".join(["case,patient,site,grey,mask", *lines]) + "\n")
    result = ganseg("evaluate", "shapes", "--data", masked / "cohort.csv", "--part", "all")
    assert result.code != 0
    assert len(result.errors) == 1, result.err
    assert "none of shapes's classes, bar, disc" in result.errors[0]
    assert not (tmp_path / "runs" / "shapes" / "evaluation" / "all").exists()


def test_detector_trains_on_lesion_masks(ganseg, kaggle, tmp_path):
    trained = ganseg("train", "gan_detector_debug", "--data", kaggle, "--run-name", "lesions", *SHORT)
    assert trained.code == 0, trained.err
    scored = ganseg("evaluate", "lesions", "--data", kaggle)
    assert scored.code == 0, scored.err
    assert "no lesion" in scored.out
    exported = ganseg("export", "lesions", tmp_path / "model")
    assert exported.code == 0, exported.err
    case = next(folder for folder in sorted(kaggle.iterdir()))
    result = ganseg("predict", tmp_path / "model", case, "--out", tmp_path / "out")
    assert result.code == 0, result.err
    assert len(read_rows(tmp_path / "out" / "classes.csv")) == 7


def test_calibrate_rejects_classifier_of_several_classes(ganseg, tmp_path):
    root = write_classes(tmp_path / "made", {"glioma": 6, "none": 6, "pituitary": 6})
    untrained_run("gan_detector_debug", root, tmp_path, "three")
    result = ganseg("calibrate", "three")
    assert_error(result, 2, f"the likeliest of several classes is reported: ganseg evaluate three --data {root}")
    assert "operating point" not in result.errors[0]

import json

import numpy as np
import pytest
from PIL import Image

from ganseg_dist.cli import synthesis
from ganseg_dist.config import override
from ganseg_dist.data.readers import read_cohort
from ganseg_dist.data.scan import load_scan
from ganseg_dist.names import folder_name
from ganseg_dist.planning.plan import plan_training
from ganseg_dist.planning.prepare import prepared_slices
from ganseg_dist.planning.request import TrainingRequest
from ganseg_dist.synthesis import generate as generation
from ganseg_dist.systems import recipe
from tests.cli.conftest import assert_error, snapshot, untrained_run
from tests.data.cohorts import read_rows, write_classes, write_pictures


def test_synthesize_writes_pairs_as_cohort_marked_synthetic(ganseg, osmosis_run, kaggle, tmp_path):
    out = tmp_path / "out"
    result = ganseg("synthesize", "pictures", "--out", out)
    assert result.code == 0, result.err
    cohort = read_cohort(out)
    training = {case.patient for case in read_cohort(kaggle).of_patients(osmosis_run.split().train)}
    assert len(cohort.patients) == len(training)
    assert not any(patient in line for patient in training for line in (out / "manifest.csv").read_text().splitlines())
    assert cohort.modalities == ("t1", "t1ce", "flair")
    scan = load_scan(cohort.cases[0])
    assert scan.labels is not None
    assert set(np.unique(scan.labels)) == {0, 1}
    assert scan.image.shape == (3, 40, 40, 1), "a margin of background around 32 by 32"
    assert json.loads((out / "SYNTHETIC.json").read_text())["synthetic"] is True
    assert all("Synthetic" in Image.open(file).text["Description"] for file in out.rglob("*.png"))
    measured = json.loads((out / "quality.json").read_text())
    names = {"generated images", "held-out real images", "control: noise", "control: mean image"}
    assert set(measured["distances"]) == names
    held_out = read_cohort(kaggle).of_patients((*osmosis_run.split().validation, *osmosis_run.split().test))
    assert measured["held_out"] == {"n": 3 * len(held_out), "patients": len(held_out), "left_out": None}
    assert "held-out real images: fid_encoder" in result.out
    assert f"median percentile of their distances: {measured['median_percentile']:.1f};" in result.out
    assert set(measured["distances"]["generated images"]) == {"fid_encoder", "kid_encoder"}
    assert json.loads((out / "audit.json").read_text())["n"] == len(cohort.cases)
    rows = read_rows(out / "manifest.csv")
    assert f"{len(rows)} synthetic pairs" in result.out


@pytest.mark.slow
def test_synthesize_is_reproducible_for_same_seed(ganseg, osmosis_run, tmp_path):
    def generated(name, *more):
        assert ganseg("synthesize", "pictures", "--out", tmp_path / name, *more).code == 0
        return snapshot(tmp_path / name / "images")

    first = generated("a")
    assert generated("b") == first
    other = generated("c", "--seed", 1)
    assert other.keys() == first.keys()
    assert [name for name in first if other[name] == first[name]] == []
    assert len(generated("d", "--copies", 2)) == 2 * len(first)


def test_plan_training_marks_synthetic_pairs(ganseg, osmosis_run, tmp_path):
    out = tmp_path / "out"
    assert ganseg("synthesize", "pictures", "--out", out).code == 0
    config = override(recipe("ganet_seg_debug"), {"data.test_fraction": 0.3})
    plan = plan_training(TrainingRequest(config, out, local=True))
    assert plan.data_record.synthetic is True
    assert plan.found.errors == ()


def test_synthesize_rejects_pairs_that_repeat_training_images(ganseg, osmosis_run, tmp_path, monkeypatch):
    def repeat(predictor, slices, **_):
        chosen = np.flatnonzero(slices.has_lesion)
        image, regions = slices.read(chosen)
        patients = tuple(slices.cases[slices.case_of[index]].patient for index in chosen)
        return generation.GeneratedSlices(image, regions.astype(np.uint8), image, patients)

    monkeypatch.setattr(synthesis, "generate_from_masks", repeat)
    out = tmp_path / "out"
    assert_error(ganseg("synthesize", "pictures", "--out", out), 1, "100.0% of", "repeat training images")
    assert not out.exists()
    assert ganseg("synthesize", "pictures", "--out", out, "--most-memorised", 1).code == 0


def test_synthesize_rejects_masks_of_held_out_patients(ganseg, osmosis_run, kaggle, tmp_path):
    held_out = tmp_path / "held_out"
    held_out.mkdir()
    for case in read_cohort(kaggle).of_patients(osmosis_run.split().test):
        (held_out / case.id).symlink_to(kaggle / case.id)
    out = tmp_path / "out"
    assert_error(ganseg("synthesize", "pictures", "--out", out, "--masks", held_out), 1, held_out, "may generate")
    assert not out.exists()


def test_synthesize_rejects_model_without_image_generator(ganseg, kaggle_run, tmp_path):
    assert_error(ganseg("synthesize", "pictures", "--out", tmp_path / "out"), 1, "fills holes", "gan_detector")


@pytest.fixture
def detector_run(kaggle, tmp_path):
    """A finished run of an untrained conditional generator."""
    return untrained_run("gan_detector_debug", kaggle, tmp_path)


def test_synthesize_writes_classes_as_cohort_marked_synthetic(ganseg, detector_run, tmp_path):
    out = tmp_path / "out"
    result = ganseg("synthesize", "pictures", "--out", out, "--count", 6)
    assert result.code == 0, result.err
    cohort = read_cohort(out)
    assert cohort.synthetic
    assert (cohort.classes, cohort.modalities) == (("lesion", "no lesion"), ("t1", "t1ce", "flair"))
    assert len(cohort.cases) == len(cohort.patients) == 12
    for case in cohort.cases:
        assert {source.files[0].parent.name for source in case.images.values()} == {folder_name(case.class_name)}
    assert load_scan(cohort.cases[0]).image.shape == (3, 32, 32, 1)
    assert all("Synthetic" in Image.open(file).text["Description"] for file in out.rglob("*.png"))
    checked = ganseg("check", out)
    assert checked.code == 0
    assert "classes lesion, no lesion; 0 errors" in checked.out
    quality = json.loads((out / "quality.json").read_text())
    assert "detector was trained on generated images; give --judge" in quality["judge"]["left_out"]
    assert "judge" not in result.out
    assert f"median percentile of their distances: {quality['median_percentile']:.1f};" in result.out
    measured = quality["classes"]
    assert list(measured) == ["no lesion", "lesion"]
    for of_class in measured.values():
        names = {"generated", "held-out real images", "control: noise", "control: mean image"}
        assert set(of_class["distances"]) == names
        assert set(of_class["distances"]["generated"]) == {"fid_encoder", "kid_encoder"}
        assert of_class["n_synthetic"] == of_class["distances"]["generated"]["kid_encoder"]["n_synthetic"] == 6
    assert json.loads((out / "audit.json").read_text())["n"] == 12
    assert "lesion, control: noise: fid_encoder" in result.out
    assert "12 synthetic images" in result.out


def test_synthesize_judge_accepts_only_detector_of_real_images_with_same_split(ganseg, detector_run, kaggle, tmp_path):
    untrained_run("gan_detector_debug", kaggle, tmp_path, "plain", {"system.augmentation": "none"})
    untrained_run("gan_detector_debug", kaggle, tmp_path, "elsewhere", {"system.augmentation": "none", "seed": 1})
    out = tmp_path / "out"
    args = ("synthesize", "pictures", "--out", out, "--count", 6, "--judge")
    assert_error(ganseg(*args, "pictures"), 2, "--judge pictures", "may have seen generated images")
    assert_error(ganseg(*args, "elsewhere"), 2, "--judge elsewhere", "split otherwise than pictures's")
    assert not out.exists()
    result = ganseg(*args, "plain")
    assert result.code == 0, result.err
    judged = json.loads((out / "quality.json").read_text())["judge"]
    assert judged["run"] == "plain"
    assert judged["generated"]["n"] == 12
    assert {name: of["n"] for name, of in judged["generated"]["classes"].items()} == {"no lesion": 6, "lesion": 6}
    right = judged["generated"]["accuracy"] * 12
    assert right == pytest.approx(sum(of["accuracy"] * 6 for of in judged["generated"]["classes"].values()))
    held_out = read_cohort(kaggle).of_patients((*detector_run.split().validation, *detector_run.split().test))
    assert judged["held_out"]["n"] == 7 * len(held_out)
    assert "of 12 generated images called by their class" in result.out


@pytest.mark.slow
def test_synthesize_reports_missing_held_out_images(ganseg, osmosis_run, kaggle, tmp_path):
    """A run without held-out patients, and a run whose held-out patients are no longer readable."""
    untrained_run(
        "gan_osmosis_debug", kaggle, tmp_path, "all", {"data.validation_fraction": 0.0, "data.test_fraction": 0.0}
    )
    moved = tmp_path / "kaggle"
    moved.mkdir()
    for case in read_cohort(kaggle).of_patients(osmosis_run.split().train):
        (moved / case.id).symlink_to(kaggle / case.id)
    osmosis_run.describe(request=osmosis_run.description().request.model_copy(update={"data": str(moved)}))
    for run, why, warned in (
        ("all", "the run held no patient out", False),
        ("pictures", "they cannot be read now", True),
    ):
        out = tmp_path / run
        result = ganseg("synthesize", run, "--out", out)
        assert result.code == 0, result.err
        measured = json.loads((out / "quality.json").read_text())
        assert measured["held_out"] == {"n": 0, "patients": 0, "left_out": why}
        assert (f"warning: {moved}: holds no case" in result.err) == warned
        assert set(measured["distances"]) == {"generated images", "control: noise", "control: mean image"}
        assert "held-out real images: not measured, " in result.out


def test_plan_training_marks_synthetic_classes(ganseg, detector_run, tmp_path):
    out = tmp_path / "out"
    assert ganseg("synthesize", "pictures", "--out", out, "--count", 6).code == 0
    plan = plan_training(TrainingRequest(recipe("gan_detector_debug"), out, local=True))
    assert plan.data_record.synthetic is True
    assert set(plan.config.data.classes) == {"lesion", "no lesion"}
    assert plan.found.errors == ()


def test_synthesize_omits_distances_for_too_few_images_of_one_class(ganseg, detector_run, tmp_path):
    out = tmp_path / "out"
    result = ganseg("synthesize", "pictures", "--out", out, "--count", 2, "--class", "lesion")
    assert result.code == 0, result.err
    assert read_cohort(out).classes == ("lesion",)
    assert json.loads((out / "quality.json").read_text())["classes"]["lesion"]["distances"] is None
    assert "lesion: 2 synthetic and" in result.out
    assert "are too few for a distance" in result.out


def test_synthesize_generates_only_lesions_with_unconditional_generator(ganseg, kaggle, tmp_path):
    untrained_run("gan_detector_debug", kaggle, tmp_path, changes={"system.generator": "dcgan"})
    out = tmp_path / "out"
    result = ganseg("synthesize", "pictures", "--out", out, "--class", "no lesion")
    assert_error(result, 2, "--class no lesion", "was trained on lesion;")
    assert not out.exists()
    assert ganseg("synthesize", "pictures", "--out", out, "--count", 4).code == 0
    assert read_cohort(out).classes == ("lesion",)


def test_synthesize_rejects_classes_that_repeat_training_images(ganseg, detector_run, kaggle, tmp_path, monkeypatch):
    training = read_cohort(kaggle).of_patients(detector_run.split().train)
    image, _ = prepared_slices(training, detector_run.config()).read(np.arange(5))
    monkeypatch.setattr(synthesis, "generate", lambda predictor, **_: generation.Generated(image, ("lesion",) * 5))
    out = tmp_path / "out"
    assert_error(ganseg("synthesize", "pictures", "--out", out), 1, "100.0% of 5", "repeat training images")
    assert not out.exists()


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("osmosis_run", ("--count", 3)),
        ("osmosis_run", ("--class", "lesion")),
        ("osmosis_run", ("--judge", "other")),
        ("detector_run", ("--copies", 2)),
        ("detector_run", ("--masks", "somewhere")),
        ("detector_run", ("--as-they-are",)),
    ],
)
def test_synthesize_rejects_options_of_other_generator(ganseg, kind, options, tmp_path, request):
    request.getfixturevalue(kind)
    mend = {"--count": "give --copies instead", "--copies": "give --count instead"}.get(options[0], "leave it out")
    assert_error(ganseg("synthesize", "pictures", "--out", tmp_path / "out", *options), 2, options[0], mend)


@pytest.mark.parametrize("options", [("--copies", 0), ("--count", 0), ("--most-memorised", 2), ("--seed", -1)])
def test_synthesize_rejects_out_of_range_options(ganseg, osmosis_run, tmp_path, options):
    assert ganseg("synthesize", "pictures", "--out", tmp_path / "out", *options).code == 2


@pytest.mark.parametrize("kind", ["osmosis_run", "detector_run"])
def test_synthesize_rejects_foreign_output_folder_before_generating(ganseg, kind, tmp_path, request, monkeypatch):
    request.getfixturevalue(kind)
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("precious")
    for name in ("generate_from_masks", "generate"):
        monkeypatch.setattr(synthesis, name, None)  # a call would be a traceback
    result = ganseg("synthesize", "pictures", "--out", out)
    assert_error(result, 1, f"{out}: exists and is no earlier synthesis; give a new folder")
    assert snapshot(out) == {"thesis.txt": b"precious"}


@pytest.mark.slow
def test_synthesize_replaces_earlier_synthesis(ganseg, detector_run, tmp_path):
    out = tmp_path / "out"
    for count in (5, 4):
        assert ganseg("synthesize", "pictures", "--out", out, "--count", count).code == 0
    assert len(read_cohort(out).cases) == 2 * 4


@pytest.mark.parametrize("copies", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_check_accepts_deformed_pairs_for_recipe_of_generator(ganseg, osmosis_run, tmp_path, copies):
    out = tmp_path / "out"
    assert ganseg("synthesize", "pictures", "--out", out, "--copies", copies).code == 0
    few = ("--set", "data.test_fraction=0", "--set", "data.validation_fraction=0.25")  # of four patients
    checked = ganseg("check", out, "--recipe", "gan_osmosis_debug", *few)
    assert checked.code == 0, checked.out
    assert "skull" not in checked.out
    assert "0 errors, 0 warnings" in checked.out


@pytest.mark.slow
def test_train_accepts_synthetic_classes(ganseg, detector_run, tmp_path):
    out = tmp_path / "out"
    assert ganseg("synthesize", "pictures", "--out", out, "--count", 12).code == 0
    result = ganseg("train", "gan_detector_debug", "--data", out, "--local", "--run-name", "again",
                  "--set", "train.epochs=1", "--set", "system.synthesis_epochs=1")  # fmt: skip
    assert result.code == 0, result.err
    history = json.loads((tmp_path / "runs" / "again" / "history.json").read_text())
    assert "accuracy" in history[-1]["scores"]
    assert history[0]["scores"]["diversity"] > 0


def test_synthesize_rejects_masks_with_images_of_other_channels(ganseg, osmosis_run, tmp_path):
    other = write_pictures(tmp_path / "other", ["a", "b"])
    result = ganseg("synthesize", "pictures", "--out", tmp_path / "out", "--masks", other)
    messages = f"{other}: its images have no t1, t1ce, flair", "give masks with images of t1, t1ce, flair"
    assert_error(result, 1, *messages)


def test_synthesize_rejects_class_without_training_images(ganseg, tmp_path):
    root = write_classes(tmp_path / "made", {"Training/a": 6, "Training/b": 6, "Testing/a": 2, "Testing/c": 2})
    untrained_run("gan_detector_debug", root, tmp_path)
    out = tmp_path / "out"
    assert_error(
        ganseg("synthesize", "pictures", "--out", out, "--count", 4), 1, "saw no training image of c", "--class"
    )
    assert not out.exists()
    args = ("synthesize", "pictures", "--out", out, "--count", 4, "--class", "a")
    assert ganseg(*args).code == 0

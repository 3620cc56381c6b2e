"""`ganseg check` and the training commands report the same findings for the same images."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest

from tests.cli.conftest import QUICK, assert_error
from tests.data.cohorts import save_picture, slice_of_head, write_classes, write_rows

MASK = "*/*_seg.nii.gz"


def empty(files):
    for file in files:
        mask = nib.load(file)
        file.unlink()
        nib.save(nib.Nifti1Image(np.zeros(mask.shape, np.uint8), mask.affine), file)


def warnings(text):
    return [line for line in text.splitlines() if line.startswith("warning: ")]


def all_masks_empty(root, tmp_path):
    empty(root.glob(MASK))
    return root


def few_patients(root, tmp_path):
    for folder in sorted(folder for folder in root.iterdir() if folder.is_dir())[2:]:
        shutil.rmtree(folder)
    return root


def no_masks(root, tmp_path):
    for file in root.glob(MASK):
        file.unlink()
    return root


def no_lesion_in_training(root, tmp_path):
    rows = []
    for number, folder in enumerate(sorted(folder for folder in root.iterdir() if folder.is_dir())):
        mask, flair = next(folder.glob("*_seg.nii.gz")), next(folder.glob("*_flair.nii.gz"))
        if number:
            empty([mask])
        files = {"flair": flair.relative_to(tmp_path), "mask": mask.relative_to(tmp_path)}
        rows.append({"case": folder.name, "patient": folder.name, **files, "labels": "brats",
                     "part": "train" if number else "test"})  # fmt: skip
    return write_rows(tmp_path / "list.csv", rows)


def one_class_in_training(root, tmp_path):
    return write_classes(tmp_path / "classes", {"Training/glioma": 6, "Testing/glioma": 2, "Testing/none": 2})


def one_class(root, tmp_path):
    return write_classes(tmp_path / "classes", {"Training/glioma": 6, "Testing/glioma": 2})


def pictures_with_lesions(root, tmp_path):
    rows = []
    for number in range(6):
        save_picture(tmp_path / f"{number}.png", slice_of_head(number))
        save_picture(tmp_path / f"{number}_mask.png", slice_of_head(number) > 150)
        rows.append(
            {"case": str(number), "patient": str(number), "grey": f"{number}.png", "mask": f"{number}_mask.png"}
        )
    return write_rows(tmp_path / "list.csv", rows)


@pytest.mark.parametrize(
    ("spoil", "recipe", "message"),
    [
        (all_masks_empty, "ganet_seg_debug", "all 8 masks are empty: there is nothing to segment"),
        (all_masks_empty, "gan_detector_debug", "images are all of one class, no lesion"),
        (few_patients, "ganet_seg_debug", "2 patients leave none for "),
        (no_masks, "gan_osmosis_debug", "has no masks to train on"),
        (no_lesion_in_training, "ganet_seg_debug", "none of the 6 training cases shows a lesion"),
        (one_class_in_training, "dl_gan_cnn_debug", "images are all of one class, glioma"),
        (one_class, "dl_gan_cnn_debug", "every picture is of one class, glioma"),
        (
            pictures_with_lesions,
            "ganet_seg_debug",
            "training cases is without a lesion and has enough foreground",
        ),
    ],
)
def test_check_reports_same_error_as_train(ganseg, bad_cohort, tmp_path, spoil, recipe, message):
    data = spoil(bad_cohort, tmp_path)
    checked = ganseg("check", data, "--recipe", recipe)
    assert checked.code == 1
    (error,) = [line for line in checked.out.splitlines() if line.startswith("error: ")]
    assert message in error
    for more in ((), ("--dry-run",)):
        result = ganseg("train", recipe, "--data", data, "--local", *more)
        assert result.code == 1
        assert result.errors == [error]
        assert result.out == ""
    assert not (tmp_path / "runs" / f"{recipe}-{data.stem}").exists()


def test_train_and_prepare_print_warnings_of_check(ganseg, bad_cohort):
    checked = warnings(ganseg("check", bad_cohort, "--recipe", "ganet_seg_debug").out)
    assert [line for line in checked if "the mask is empty" in line], "of the healthy subject"
    args = ("ganet_seg_debug", "--data", bad_cohort, "--local", *QUICK)
    assert warnings(ganseg("train", *args, "--dry-run").err) == checked
    trained = warnings(ganseg("train", *args).err)
    assert trained[: len(checked)] == checked
    assert not set(trained[len(checked) :]) & set(checked)
    assert warnings(ganseg("prepare", bad_cohort, "--recipe", "ganet_seg_debug", "--local").err) == checked


def test_train_counts_repeated_warnings_and_names_check_command(ganseg, bad_cohort):
    empty(sorted(bad_cohort.glob(MASK))[:6])
    shown = ganseg("train", "ganet_seg_debug", "--data", bad_cohort, "--layout", "brats", "--local", "--dry-run")
    about_masks = [line for line in warnings(shown.err) if "empty" in line]
    assert len(about_masks) == 4
    command = f"ganseg check {bad_cohort} --recipe ganet_seg_debug --layout brats"
    assert about_masks[-1] == f"warning: and 4 more of empty-mask: {command}"
    listed = ganseg(*command.split()[1:])
    assert len([line for line in warnings(listed.out) if "the mask is empty" in line]) == 7


def test_train_exclude_bad_warns_of_excluded_case(ganseg, bad_cohort):
    flair = next(bad_cohort.glob("*/*_flair.nii.gz"))
    flair.unlink()
    flair.write_bytes(b"")
    shown = ganseg("train", "ganet_seg_debug", "--data", bad_cohort, "--local", "--dry-run", "--exclude-bad")
    assert shown.code == 0, shown.err
    (line,) = [line for line in warnings(shown.err) if str(flair) in line]
    assert line.endswith("(left out)")


def test_check_applies_set_options_of_recipe(ganseg, bad_cohort):
    args = ("check", bad_cohort, "--recipe", "ganet_seg_debug")
    fractions = ("--set", "data.validation_fraction=0.04", "--set", "data.test_fraction=0.04")
    assert "leave none for validation" in ganseg(*args, *fractions).out
    assert ganseg(*args).code == 0
    assert_error(ganseg("check", bad_cohort, "--set", "seed=1"), 2, "--set: is of a recipe; give --recipe too")


def test_check_lists_unfit_recipes_without_recipe(ganseg, phantom, tmp_path):
    fits = ganseg("check", phantom)
    assert "cannot train" not in fits.err
    classes = write_classes(tmp_path / "classes", {"glioma": 6, "none": 6})
    shown = ganseg("check", classes)
    assert shown.code == 0
    assert f"note: it cannot train gan_osmosis, ganet_seg: {classes}: has no masks to train on" in shown.err
    unfit = json.loads(ganseg("check", classes, "--json").out)["unfit_recipes"]
    assert list(unfit) == ["gan_osmosis", "ganet_seg"]


def test_check_json_includes_planning_error(ganseg, bad_cohort, tmp_path):
    data = few_patients(bad_cohort, tmp_path)
    found = json.loads(ganseg("check", data, "--recipe", "ganet_seg_debug", "--json").out)["findings"]
    (error,) = [finding for finding in found if finding["severity"] == "error"]
    assert (error["case"], error["file"], error["check"]) == ("", str(data), "training")
    assert error["problem"].startswith("2 patients leave none for ")
    assert error["remedy"].startswith("add patients or lower data.")


def test_experiment_folds_rejects_trial_without_lesion_before_training(ganseg, bad_cohort, tmp_path):
    masks = sorted(bad_cohort.glob(MASK))
    empty(masks[1:])
    args = ("ganet_seg_debug", "--data", bad_cohort, "--local", "--folds", "3", "--run-name", "folds")
    result = ganseg("experiment", "folds", *args)
    assert result.code == 1
    assert "none of the" in result.errors[0]
    assert "training cases shows a lesion" in result.errors[0]
    assert result.errors[0].startswith(f"error: fold1: {bad_cohort}: ")
    assert not (tmp_path / "runs" / "folds").exists()

"""Checks of masks and classes before training."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from ganseg_dist.config import override
from ganseg_dist.data.cohort import split_as_configured
from ganseg_dist.data.readers import read_cohort
from ganseg_dist.errors import DataError
from ganseg_dist.planning.plan import plan_training
from ganseg_dist.planning.preflight import preflight
from ganseg_dist.planning.request import TrainingRequest
from ganseg_dist.runs import named_run
from ganseg_dist.studies.sweeps.request import SweepRequest
from ganseg_dist.studies.sweeps.run import run_sweep
from ganseg_dist.systems import recipe
from ganseg_dist.training.session import train_session
from tests.data.cohorts import save_picture, slice_of_head, write_classes, write_rows
from tests.trackers import WarningTracker
from tune_spaces import spaces

pytestmark = pytest.mark.usefixtures("own_places")


def training_error(name, data, **changes):
    """The one-line error of a training; asserts that no run folder was created."""
    config = override(recipe(name), {field.replace("__", "."): value for field, value in changes.items()})
    with pytest.raises(DataError) as caught:
        train_session(TrainingRequest(config, data, local=True, run_name="mine"))
    runs = data.parent / "runs"
    assert not (runs / "mine").exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def with_empty_masks(root, *, but=()):
    for file in root.glob("*/*_seg.nii.gz"):
        if file.parent.name not in but:
            mask = nib.load(file)
            nib.save(nib.Nifti1Image(np.zeros(mask.shape, np.uint8), mask.affine), file)
    return root


@pytest.mark.parametrize("name", ["ganet_seg_debug", "gan_osmosis_debug"])
def test_train_session_rejects_segmenter_of_empty_masks(cohort_copy, name):
    assert "all 8 masks are empty: there is nothing to segment" in training_error(name, with_empty_masks(cohort_copy))
    assert "all 8 masks are empty" in training_error(name, cohort_copy, system__gan=False)


@pytest.mark.slow
def test_validation_without_lesion_warns_in_training_and_fails_in_sweep(cohort_copy):
    config = override(recipe("ganet_seg_debug"), {"system.gan": False, "train.epochs": 1})
    request = TrainingRequest(config, cohort_copy, local=True, run_name="mine")
    plan = plan_training(request)
    split = split_as_configured(plan.cohort, plan.config)
    trained = [case.id for case in plan.cohort.cases if case.patient not in split.validation]
    with_empty_masks(cohort_copy, but=trained)
    message = (
        "none of the 1 validation cases shows a lesion, so that no epoch can be scored; raise data.validation_fraction"
    )
    tracker = WarningTracker()
    train_session(request, tracker=tracker)
    assert sum(message in warning for warning in tracker.warnings) == 1
    with pytest.raises(DataError, match=message):
        run_sweep(SweepRequest(replace(request, run_name="swept"), spaces()["ganet_seg"], 2))
    assert not named_run("swept").folder.exists(), "the name is still free"


@pytest.mark.parametrize("name", ["ganet_seg_debug", "gan_osmosis_debug"])
def test_train_session_rejects_segmenter_without_lesion_in_training(cohort_copy, name):
    plan = plan_training(TrainingRequest(recipe(name), cohort_copy, local=True))
    tested = "BraTS20_Training_005"
    with_empty_masks(cohort_copy, but=[tested])
    rows = []
    for case in plan.cohort.cases:
        files = {name: source.files[0] for name, source in case.images.items()} | {"mask": case.mask.files[0]}
        files = {name: file.relative_to(cohort_copy.parent) for name, file in files.items()}
        rows.append({"case": case.id, "patient": case.patient, **files, "labels": "brats",
                     "part": "test" if case.id == tested else "train"})  # fmt: skip
    listed = write_rows(cohort_copy.parent / "list.csv", rows)
    result = training_error(name, listed)
    assert result.startswith(f"{listed}: none of the ")
    assert "training cases shows a lesion; check the masks, and what their values mean, or add patients" in result


@pytest.mark.parametrize("name", ["gan_detector_debug", "dl_gan_cnn_debug"])
def test_train_session_rejects_classifier_of_empty_masks(cohort_copy, name):
    result = training_error(name, with_empty_masks(cohort_copy))
    assert "the training patients' images are all of one class, no lesion; add patients with images of lesion" in result


def test_train_session_rejects_classifier_of_one_training_class(tmp_path):
    root = write_classes(tmp_path / "made", {"Training/glioma": 6, "Testing/glioma": 2, "Testing/none": 2})
    result = training_error("gan_detector_debug", root)
    alike = "the training patients' images are all of one class, glioma; add patients with images of none"
    assert result == f"{root}: {alike}"


def test_train_session_rejects_images_of_unknown_class(tmp_path, monkeypatch):
    root = write_classes(tmp_path / "made", {"glioma": 6, "none": 6})
    monkeypatch.setattr("ganseg_dist.data.slices.slice_classes", lambda name, lesion, slices, classes: [None] * slices)
    result = training_error("gan_detector_debug", root, system__gan=False)
    unknown = "the training patients' images are of no known class; add patients with images of none, glioma"
    assert result == f"{root}: {unknown}"


def test_detector_trains_on_class_folders_named_lesion_and_no_lesion(tmp_path):
    root = write_classes(tmp_path / "made", {"lesion": 10, "no lesion": 10})
    config = override(recipe("gan_detector_debug"), {"train.epochs": 1, "system.synthesis_epochs": 1})
    run = train_session(TrainingRequest(config, root, local=True, run_name="mine"))
    (detect,) = [record for record in run.read("history.json") if record["stage"] == "detect"]
    assert "accuracy" in detect["scores"]
    assert any(value > 0 for name, value in detect["losses"].items() if "real" in name)


def test_plan_training_keeps_case_without_mask_for_classifier(tmp_path):
    rows = []
    for number in range(4):
        save_picture(tmp_path / f"{number}.png", slice_of_head(number))
        rows.append({"case": str(number), "patient": str(number), "grey": f"{number}.png", "mask": "",
                     "class": ("glioma", "none")[number % 2]})  # fmt: skip
    save_picture(tmp_path / "mask.png", slice_of_head(0) > 150)
    rows[0]["mask"] = "mask.png"
    file = write_rows(tmp_path / "list.csv", rows)
    plans = [
        plan_training(TrainingRequest(recipe(name), file, local=True))
        for name in ("gan_detector_debug", "gan_osmosis_debug")
    ]
    assert [len(plan.cohort.cases) for plan in plans] == [4, 1]


def test_plan_training_rejects_single_class_without_exclude_bad_hint(tmp_path):
    root = write_classes(tmp_path / "made", {"Training/glioma": 6, "Testing/glioma": 2})
    for exclude_bad in (False, True):
        with pytest.raises(DataError) as caught:
            plan_training(TrainingRequest(recipe("gan_detector_debug"), root, local=True, exclude_bad=exclude_bad))
        assert "every picture is of one class, glioma" in str(caught.value)
        assert "--exclude-bad" not in str(caught.value)


def test_preflight_skips_registration_check_of_synthetic_images(cohort_copy):
    for flair in cohort_copy.glob("*/*_flair.nii.gz"):
        image = nib.load(flair)
        nib.save(nib.Nifti1Image(np.roll(np.asarray(image.dataobj), 4, 1), image.affine), flair)
    checks = {finding.check for finding in preflight(read_cohort(cohort_copy)).findings}
    assert "unregistered" in checks
    (cohort_copy / "SYNTHETIC.json").write_text("{}")
    assert "unregistered" not in {finding.check for finding in preflight(read_cohort(cohort_copy)).findings}

from collections import Counter

import numpy as np
import pytest

from ganseg_dist.data.readers import read_cohort
from ganseg_dist.data.scan import load_scan
from ganseg_dist.errors import ConfigError, DataError
from tests.data.cohorts import save_picture, slice_of_head, tissue, write_classes, write_rows


@pytest.mark.parametrize(
    ("training", "testing"), [("Training", "Testing"), ("train", "test"), ("TRAIN", "TEST"), ("val", "test")]
)
def test_class_folder_reader_takes_class_and_part_from_folders(tmp_path, training, testing):
    write_classes(tmp_path, {f"{training}/glioma": 2, f"{training}/none": 1, f"{testing}/glioma": 1})
    cohort = read_cohort(tmp_path)
    assert cohort.layout == "class_folder"
    assert {case.id: (case.class_name, case.part) for case in cohort.cases} == {
        f"{training}_glioma_0": ("glioma", "train"),
        f"{training}_glioma_1": ("glioma", "train"),
        f"{training}_none_0": ("none", "train"),
        f"{testing}_glioma_0": ("glioma", "test"),
    }
    assert cohort.classes == ("glioma", "none")
    assert cohort.regions == ()
    assert cohort.modalities == ("grey",)
    (tested,) = (case for case in cohort.cases if case.part == "test")
    np.testing.assert_array_equal(load_scan(tested).image[0, ..., 0], slice_of_head(3))


@pytest.mark.parametrize("classes", [("lesion", "no lesion"), ("with_mask", "without_mask")])
def test_class_folder_reader_accepts_class_names_like_mask_names(tmp_path, classes):
    write_classes(tmp_path, dict.fromkeys(classes, 1))
    assert read_cohort(tmp_path).classes == classes


def test_class_folder_reader_without_parts_leaves_part_none(tmp_path):
    cohort = read_cohort(write_classes(tmp_path, {"glioma": 2, "none": 2}))
    assert [(case.id, case.class_name, case.part) for case in cohort.cases] == [
        ("glioma_0", "glioma", None),
        ("glioma_1", "glioma", None),
        ("none_0", "none", None),
        ("none_1", "none", None),
    ]
    assert not any(case.patient_known for case in cohort.cases)
    assert len(cohort.patients) == 4, "unknown patients, so each picture is its own"


def test_class_folder_reader_uses_patients_csv(tmp_path):
    write_classes(tmp_path, {"glioma": 1, "none": 1})
    rows = [{"file": f"{name}/0.png", "patient": "ada", "site": "north"} for name in ("glioma", "none")]
    write_rows(tmp_path / "patients.csv", rows)
    assert {(case.patient, case.site, case.patient_known) for case in read_cohort(tmp_path).cases} == {
        ("ada", "north", True)
    }


def test_class_folder_reader_takes_class_and_patient_from_name(tmp_path):
    names = ["Viable___Case-4-C21-25306_120", "Non-Tumor___P9-B12-15791_103", "Non-Tumor___Case-48-P5-C18_1", "x___y"]
    for number, name in enumerate(names):
        save_picture(tmp_path / f"{name}.png", tissue(number)[0])
    cohort = read_cohort(tmp_path)
    assert cohort.modalities == ("red", "green", "blue")
    assert {case.id: (case.class_name, case.patient, case.patient_known) for case in cohort.cases} == {
        names[0]: ("Viable", "Case-4", True),
        names[1]: ("Non-Tumor", "P9", True),
        names[2]: ("Non-Tumor", "Case-48", True),
        names[3]: ("x", "x___y", False),
    }


@pytest.mark.parametrize(
    "folders",
    [
        {"pictures": 2}, {"images/deep": 1}, {"a_folder/deep": 1, "b_folder/deep": 1}, {"masks": 1, "images_old": 1},
        {"image": 1, "mask": 1}, {"img": 1, "label": 1}, {"pictures": 1, "ground_truth": 1},
        {"training/images": 1, "training/masks": 1, "test/images": 1, "test/masks": 1},
    ],
)  # fmt: skip
def test_class_folder_reader_rejects_other_picture_folders(tmp_path, folders):
    write_classes(tmp_path, folders)
    with pytest.raises(DataError, match="no known layout recognised"):
        read_cohort(tmp_path)


def test_class_folder_reader_rejects_pictures_beside_masks(tmp_path):
    for patient in ("ada", "ben"):
        for name in ("1.png", "1_mask.png"):
            save_picture(tmp_path / patient / name, slice_of_head(0))
    with pytest.raises(DataError, match="no known layout recognised"):
        read_cohort(tmp_path)


def test_class_folder_reader_reads_brain4(shared_data):
    cohort = read_cohort(shared_data / "brain4")
    assert (cohort.layout, cohort.modalities) == ("class_folder", ("grey",))
    counts = Counter((case.part, case.class_name) for case in cohort.cases)
    names = ("glioma", "meningioma", "notumor", "pituitary")
    assert counts == {("train", name): 200 for name in names} | {("test", name): 50 for name in names}


def test_class_folder_reader_reads_osteosarcoma(shared_data):
    cohort = read_cohort(shared_data / "osteosarcoma")
    assert (cohort.layout, cohort.modalities) == ("class_folder", ("red", "green", "blue"))
    assert cohort.classes == ("Non-Tumor", "Non-Viable-Tumor", "Viable")
    assert cohort.patients == ("Case-3", "Case-4", "Case-48", "P9")


def test_class_folder_reader_rejects_differing_pictures_of_one_name(tmp_path):
    write_classes(tmp_path, {"glioma": 2, "none": 2})
    save_picture(tmp_path / "glioma" / "0.TIF", slice_of_head(0))
    assert len(read_cohort(tmp_path).cases) == 4
    save_picture(tmp_path / "glioma" / "0.TIF", slice_of_head(9))
    with pytest.raises(DataError) as caught:
        read_cohort(tmp_path)
    first = tmp_path / "glioma" / "0.TIF"
    assert (
        str(caught.value) == f"{first}: could be the picture 0, and so could 0.png, which differs; keep or rename one"
    )


@pytest.mark.parametrize(
    ("in_training", "in_test"), [("glioma", "Glioma"), ("no_tumor", "notumor"), ("No Tumor", "no_tumor"), ("a", "a ")]
)
def test_class_folder_reader_rejects_nearly_equal_class_names(tmp_path, in_training, in_test):
    write_classes(tmp_path, {f"train/{in_training}": 1, "train/other": 1, f"Testing/{in_test}": 1})
    problem = f"train/{in_training}: is class {in_training}, and another is {in_test}; name them alike"
    with pytest.raises(DataError, match=problem):
        read_cohort(tmp_path)


def test_class_folder_reader_ignores_system_folders(tmp_path):
    write_classes(tmp_path, {"glioma": 1, "none": 1, "@eaDir": 1, ".ipynb_checkpoints": 1, "__MACOSX": 1})
    (tmp_path / "none" / "._0.png").write_bytes(b"no picture")
    (tmp_path / "none" / "0.png").rename(tmp_path / "none" / "0.PNG")
    assert [case.id for case in read_cohort(tmp_path).cases] == ["glioma_0", "none_0"]


def test_class_folder_reader_rejects_picture_listed_for_two_patients(tmp_path):
    write_classes(tmp_path, {"glioma": 1, "none": 1})
    rows = [{"file": name, "patient": patient} for name, patient in (("glioma/0.png", "ada"), ("0", "ben"))]
    write_rows(tmp_path / "patients.csv", rows)
    with pytest.raises(DataError, match=r"patients\.csv: lists glioma/0\.png as glioma/0\.png and as 0, of different"):
        read_cohort(tmp_path)


def test_class_folder_reader_rejects_label_scheme(tmp_path):
    write_classes(tmp_path, {"glioma": 1, "none": 1})
    with pytest.raises(ConfigError, match="--labels brats: masks of layout class_folder show one structure"):
        read_cohort(tmp_path, labels="brats")

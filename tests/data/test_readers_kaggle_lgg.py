import numpy as np

from ganseg_dist.data.readers import read_cohort
from ganseg_dist.data.scan import load_scan
from tests.data.cohorts import SHAPE, brain, write_kaggle

CASES = ("TCGA_CS_4941_19960909", "TCGA_HT_A4MU_20030903")


def test_sites_and_patients_are_in_the_ids(tmp_path):
    cohort = read_cohort(write_kaggle(tmp_path, CASES))
    assert cohort.layout == "kaggle_lgg"
    assert [(case.id, case.patient, case.site) for case in cohort.cases] == [
        ("TCGA_CS_4941_19960909", "TCGA_CS_4941", "CS"),
        ("TCGA_HT_A4MU_20030903", "TCGA_HT_A4MU", "HT"),
    ]
    assert cohort.modalities == ("t1", "t1ce", "flair")
    assert cohort.regions == ("wt",)


def test_slices_stand_in_numeric_order_and_channels_by_name(tmp_path):
    case = read_cohort(write_kaggle(tmp_path, CASES)).cases[0]
    images, labels = brain(0)
    scan = load_scan(case, ("t1", "t1ce", "flair"))
    assert scan.image.shape == (3, *SHAPE)
    for modality, volume in zip(scan.modalities, scan.image, strict=True):
        np.testing.assert_array_equal(volume, (images[modality] / 6).clip(0, 255).astype(np.uint8))
    np.testing.assert_array_equal(scan.labels, labels > 0)
    assert scan.grid.affine is None


def test_the_download_nests_the_set_and_holds_it_twice(tmp_path):
    write_kaggle(tmp_path / "kaggle_3m", CASES)
    write_kaggle(tmp_path / "lgg-mri-segmentation" / "kaggle_3m", CASES)
    assert [case.id for case in read_cohort(tmp_path).cases] == list(CASES)


def test_the_real_set(shared_data):
    folders = [path for path in (shared_data / "lgg").iterdir() if path.is_dir()]
    cohort = read_cohort(shared_data / "lgg")
    assert len(cohort.cases) == len(cohort.patients) == len(folders) > 0
    assert {case.site for case in cohort.cases} == {folder.name.split("_")[1] for folder in folders}
    slices = [file for folder in folders for file in folder.glob("*.tif") if not file.stem.endswith("_mask")]
    assert sum(len(case.images["t1"].files) for case in cohort.cases) == len(slices)


def test_one_patients_folder_is_a_cohort_of_one(tmp_path, monkeypatch):
    folder = write_kaggle(tmp_path, CASES) / CASES[1]
    assert [case.id for case in read_cohort(folder).cases] == [CASES[1]]
    monkeypatch.chdir(folder)
    (case,) = read_cohort(folder.relative_to(folder)).cases
    assert case.images["t1"].files[0].exists()

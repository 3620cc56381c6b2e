import shutil

import numpy as np
import pytest
import tifffile

from ganseg_dist.data.readers import read_cohort
from ganseg_dist.data.scan import load_scan
from ganseg_dist.errors import DataError
from tests.data.cohorts import SHAPE, brain, write_kaggle

CASES = ("TCGA_CS_4941_19960909", "TCGA_HT_A4MU_20030903")


def test_kaggle_reader_takes_patients_and_sites_from_ids(tmp_path):
    cohort = read_cohort(write_kaggle(tmp_path, CASES))
    assert cohort.layout == "kaggle_lgg"
    assert [(case.id, case.patient, case.site) for case in cohort.cases] == [
        ("TCGA_CS_4941_19960909", "TCGA_CS_4941", "CS"),
        ("TCGA_HT_A4MU_20030903", "TCGA_HT_A4MU", "HT"),
    ]
    assert cohort.modalities == ("t1", "t1ce", "flair")
    assert cohort.regions == ("wt",)


def test_kaggle_reader_orders_slices_numerically_and_channels_by_name(tmp_path):
    case = read_cohort(write_kaggle(tmp_path, CASES)).cases[0]
    images, labels = brain(0)
    scan = load_scan(case, ("t1", "t1ce", "flair"))
    assert scan.image.shape == (3, *SHAPE)
    for modality, volume in zip(scan.modalities, scan.image, strict=True):
        np.testing.assert_array_equal(volume, (images[modality] / 6).clip(0, 255).astype(np.uint8))
    np.testing.assert_array_equal(scan.labels, labels > 0)
    assert scan.grid.affine is None


def test_kaggle_reader_reads_nested_duplicate_once(tmp_path):
    write_kaggle(tmp_path / "kaggle_3m", CASES)
    write_kaggle(tmp_path / "lgg-mri-segmentation" / "kaggle_3m", CASES)
    assert [case.id for case in read_cohort(tmp_path).cases] == list(CASES)


def test_kaggle_reader_reads_whole_lgg_set(shared_data):
    folders = [path for path in (shared_data / "lgg").iterdir() if path.is_dir()]
    cohort = read_cohort(shared_data / "lgg")
    assert len(cohort.cases) == len(cohort.patients) == len(folders) > 0
    assert {case.site for case in cohort.cases} == {folder.name.split("_")[1] for folder in folders}
    slices = [file for folder in folders for file in folder.glob("*.tif") if not file.stem.endswith("_mask")]
    assert sum(len(case.images["t1"].files) for case in cohort.cases) == len(slices)


def test_kaggle_reader_accepts_folder_of_one_patient(tmp_path, monkeypatch):
    folder = write_kaggle(tmp_path, CASES) / CASES[1]
    assert [case.id for case in read_cohort(folder).cases] == [CASES[1]]
    monkeypatch.chdir(folder)
    (case,) = read_cohort(folder.relative_to(folder)).cases
    assert case.images["t1"].files[0].exists()


def test_kaggle_reader_rejects_differing_copies_of_a_patient(tmp_path):
    for place in ("kaggle_3m", "lgg-mri-segmentation"):
        write_kaggle(tmp_path / place, CASES[:1])
    other = tmp_path / "lgg-mri-segmentation" / CASES[0]
    mask = other / f"{CASES[0]}_16_mask.tif"
    tifffile.imwrite(mask, np.zeros_like(tifffile.imread(mask)))
    with pytest.raises(DataError) as caught:
        read_cohort(tmp_path)
    first = tmp_path / "kaggle_3m" / CASES[0]
    assert str(caught.value) == f"{first}: holds other pictures than {other}; keep one of the two"
    mask.unlink()
    with pytest.raises(DataError, match="holds other pictures than"):
        read_cohort(tmp_path)


def test_kaggle_reader_ignores_suffix_case_and_apple_doubles(tmp_path):
    folder = write_kaggle(tmp_path, CASES[:1]) / CASES[0]
    before = load_scan(read_cohort(tmp_path).cases[0])
    for file in list(folder.iterdir()):
        (folder / f"._{file.name}").write_bytes(b"no picture")
        file.rename(folder / f"{file.stem.replace('_mask', '_MASK')}.TIF")
    scan = load_scan(read_cohort(tmp_path).cases[0])
    np.testing.assert_array_equal(scan.image, before.image)
    np.testing.assert_array_equal(scan.labels, before.labels)


def test_kaggle_reader_rejects_slice_under_two_names(tmp_path):
    folder = write_kaggle(tmp_path, CASES[:1]) / CASES[0]
    slice_ = folder / f"{CASES[0]}_13.tif"
    shutil.copy(slice_, folder / f"{CASES[0]}_13.TIF")
    assert len(read_cohort(tmp_path).cases[0].images["t1"].files) == SHAPE[2]
    shutil.copy(folder / f"{CASES[0]}_16.tif", folder / f"{CASES[0]}_13.TIF")
    with pytest.raises(
        DataError, match=r"_13\.TIF: could be the picture .*_13, and so could .*_13\.tif, which differs"
    ):
        read_cohort(tmp_path)
    (folder / f"{CASES[0]}_13.TIF").unlink()
    shutil.copy(slice_, folder / f"{CASES[0]}_013.tif")
    with pytest.raises(DataError, match=r"_013\.tif: has the number of .*_13\.tif; a stack has one file a slice"):
        read_cohort(tmp_path)

import numpy as np
import pytest

from ganseg_dist.data.cohort import UNKNOWN_SITE
from ganseg_dist.data.labels import BRATS_REGIONS
from ganseg_dist.data.readers import read_cohort
from ganseg_dist.data.scan import load_scan
from ganseg_dist.errors import DataError
from tests.data.cohorts import FILES_2023, MODALITIES, brain, write_brats


def test_2020_names(tmp_path):
    cohort = read_cohort(write_brats(tmp_path, ["BraTS20_Training_002", "BraTS20_Training_001"]))
    assert cohort.layout == "brats"
    assert [case.id for case in cohort.cases] == ["BraTS20_Training_001", "BraTS20_Training_002"]
    assert cohort.patients == ("BraTS20_Training_001", "BraTS20_Training_002")
    assert cohort.modalities == MODALITIES
    assert cohort.regions == BRATS_REGIONS
    assert {case.site for case in cohort.cases} == {UNKNOWN_SITE}


def test_voxels_and_label_4_arrive(tmp_path):
    cohort = read_cohort(write_brats(tmp_path, ["BraTS20_Training_001"], suffix=".nii"))
    images, labels = brain(0)
    scan = load_scan(cohort.cases[0])
    assert scan.modalities == MODALITIES
    np.testing.assert_array_equal(scan.image, np.stack([images[m] for m in MODALITIES]))
    np.testing.assert_array_equal(scan.labels, labels)
    assert set(np.unique(labels)) == {0, 1, 2, 3}


def test_2023_names_labels_and_timepoints(tmp_path):
    cases = ["BraTS-GLI-00000-000", "BraTS-GLI-00000-001", "BraTS-GLI-00002-000"]
    cohort = read_cohort(write_brats(tmp_path, cases, names_2023=True))
    assert [case.id for case in cohort.cases] == cases
    assert cohort.patients == ("BraTS-GLI-00000", "BraTS-GLI-00002")
    assert list(cohort.cases[0].images) == list(MODALITIES)
    assert cohort.cases[0].images["t1ce"].files[0].name.endswith(f"-{FILES_2023['t1ce']}.nii.gz")
    images, labels = brain(0)
    scan = load_scan(cohort.cases[0])
    np.testing.assert_array_equal(scan.image[1], images["t1ce"])
    np.testing.assert_array_equal(scan.labels, labels)


def test_2018_and_2019_nest_grades_and_name_institutions(tmp_path):
    cases = ["HGG/Brats18_CBICA_AAB_1", "HGG/Brats18_TCIA01_131_1", "LGG/BraTS19_2013_0_1", "LGG/BraTS19_TMC_06290_2"]
    cohort = read_cohort(write_brats(tmp_path, cases))
    by_id = {case.id: case for case in cohort.cases}
    assert {name: case.site for name, case in by_id.items()} == {
        "Brats18_CBICA_AAB_1": "CBICA",
        "Brats18_TCIA01_131_1": "TCIA01",
        "BraTS19_2013_0_1": "2013",
        "BraTS19_TMC_06290_2": "TMC",
    }
    assert by_id["Brats18_TCIA01_131_1"].patient == "TCIA01_131"
    assert by_id["BraTS19_TMC_06290_2"].patient == "TMC_06290"


def test_sites_from_the_mapping_of_2020(tmp_path):
    write_brats(tmp_path, [f"BraTS20_Training_00{n}" for n in (1, 2, 3, 4)])
    (tmp_path / "name_mapping.csv").write_text(
        "Grade,BraTS_2017_subject_ID,BraTS_2018_subject_ID,TCGA_TCIA_subject_ID,BraTS_2019_subject_ID,BraTS_2020_subject_ID\n"
        "HGG,Brats17_CBICA_AAB_1,Brats18_CBICA_AAB_1,NA,BraTS19_CBICA_AAB_1,BraTS20_Training_001\n"
        "HGG,Brats17_TCIA_131_1,Brats18_TCIA01_131_1,TCGA-02-0006,BraTS19_TCIA01_131_1,BraTS20_Training_002\n"
        "LGG,NA,NA,NA,BraTS19_TMC_06290_1,BraTS20_Training_003\n"
        "HGG,NA,NA,NA,NA,BraTS20_Training_004\n"
    )
    sites = [case.site for case in read_cohort(tmp_path).cases]
    assert sites == ["CBICA", "TCGA-02", "TMC", UNKNOWN_SITE]


def test_a_site_column_goes_before_ids(tmp_path):
    write_brats(tmp_path, ["BraTS-GLI-00000-000"], names_2023=True)
    (tmp_path / "name_mapping.csv").write_text("id,tcia,Site No\nBraTS-GLI-00000-000,TCGA-02-0006,7\n")
    assert read_cohort(tmp_path).cases[0].site == "7"


def test_a_mapping_that_is_no_csv_is_named(tmp_path):
    write_brats(tmp_path, ["BraTS20_Training_001"])
    (tmp_path / "name_mapping.csv").write_text(f"Grade,id\nHGG,{'x' * 200_000}\n")
    with pytest.raises(DataError, match=r"name_mapping\.csv: cannot be read as CSV \(field larger than") as caught:
        read_cohort(tmp_path)
    assert "\n" not in str(caught.value)


def test_what_is_not_there_is_left_out(tmp_path):
    write_brats(tmp_path, ["BraTS2021_00000", "BraTS2021_00001"])
    (tmp_path / "BraTS2021_00000" / "BraTS2021_00000_t2.nii.gz").unlink()
    (tmp_path / "BraTS2021_00000" / "BraTS2021_00000_seg.nii.gz").unlink()
    cohort = read_cohort(tmp_path)
    assert list(cohort.cases[0].images) == ["t1", "t1ce", "flair"]
    assert cohort.cases[0].mask is None
    assert cohort.cases[1].mask is not None
    assert cohort.modalities == ("t1", "t1ce", "flair")


def test_the_misnamed_mask_of_2020_is_found(tmp_path):
    write_brats(tmp_path, ["BraTS20_Training_355"])
    folder = tmp_path / "BraTS20_Training_355"
    renamed = (folder / "BraTS20_Training_355_seg.nii.gz").rename(folder / "W39_1998.09.19_Segm.nii.gz")
    assert read_cohort(tmp_path).cases[0].mask.files == (renamed,)

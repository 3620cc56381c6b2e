import os
import shutil

import numpy as np
import pytest

from ganseg_dist.data.cohort import UNKNOWN_SITE
from ganseg_dist.data.labels import BRATS, BRATS_REGIONS, SCHEMES
from ganseg_dist.data.readers import read_cohort
from ganseg_dist.data.scan import load_scan
from ganseg_dist.errors import DataError
from tests.data.cohorts import FILES_2023, MODALITIES, brain, save, voxels, write_brats


def test_brats_reader_reads_2020_names(tmp_path):
    cohort = read_cohort(write_brats(tmp_path, ["BraTS20_Training_002", "BraTS20_Training_001"]))
    assert cohort.layout == "brats"
    assert [case.id for case in cohort.cases] == ["BraTS20_Training_001", "BraTS20_Training_002"]
    assert cohort.patients == ("BraTS20_Training_001", "BraTS20_Training_002")
    assert cohort.modalities == MODALITIES
    assert cohort.regions == BRATS_REGIONS
    assert {case.site for case in cohort.cases} == {UNKNOWN_SITE}


def test_brats_reader_maps_label_4_to_3(tmp_path):
    cohort = read_cohort(write_brats(tmp_path, ["BraTS20_Training_001"], suffix=".nii"))
    images, labels = brain(0)
    scan = load_scan(cohort.cases[0])
    assert scan.modalities == MODALITIES
    np.testing.assert_array_equal(scan.image, np.stack([images[m] for m in MODALITIES]))
    np.testing.assert_array_equal(scan.labels, labels)
    assert set(np.unique(labels)) == {0, 1, 2, 3}


def test_brats_reader_reads_2023_names_and_timepoints(tmp_path):
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


def test_brats_reader_reads_grades_and_institutions_of_2018_and_2019(tmp_path):
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


def test_brats_reader_takes_sites_from_2020_mapping(tmp_path):
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


def test_brats_reader_prefers_site_column_over_ids(tmp_path):
    write_brats(tmp_path, ["BraTS-GLI-00000-000"], names_2023=True)
    (tmp_path / "name_mapping.csv").write_text("id,tcia,Site No\nBraTS-GLI-00000-000,TCGA-02-0006,7\n")
    assert read_cohort(tmp_path).cases[0].site == "7"


def test_brats_reader_names_malformed_mapping(tmp_path):
    write_brats(tmp_path, ["BraTS20_Training_001"])
    (tmp_path / "name_mapping.csv").write_text(f"Grade,id\nHGG,{'x' * 200_000}\n")
    with pytest.raises(DataError, match=r"name_mapping\.csv: cannot be read as CSV \(field larger than") as caught:
        read_cohort(tmp_path)
    assert "\n" not in str(caught.value)


def test_brats_reader_omits_missing_files(tmp_path):
    write_brats(tmp_path, ["BraTS2021_00000", "BraTS2021_00001"])
    (tmp_path / "BraTS2021_00000" / "BraTS2021_00000_t2.nii.gz").unlink()
    (tmp_path / "BraTS2021_00000" / "BraTS2021_00000_seg.nii.gz").unlink()
    cohort = read_cohort(tmp_path)
    assert list(cohort.cases[0].images) == ["t1", "t1ce", "flair"]
    assert cohort.cases[0].mask is None
    assert cohort.cases[1].mask is not None
    assert cohort.modalities == ("t1", "t1ce", "flair")


def test_brats_reader_finds_misnamed_mask_of_2020(tmp_path):
    write_brats(tmp_path, ["BraTS20_Training_355"])
    folder = tmp_path / "BraTS20_Training_355"
    renamed = (folder / "BraTS20_Training_355_seg.nii.gz").rename(folder / "W39_1998.09.19_Segm.nii.gz")
    assert read_cohort(tmp_path).cases[0].mask.files == (renamed,)


def add_apple_doubles(root):
    for file in list(root.rglob("*.nii*")):
        (file.parent / f"._{file.name}").write_bytes(bytes((0, 5, 22, 7)) + bytes(200))


def test_brats_reader_ignores_apple_doubles_and_system_folders(tmp_path):
    write_brats(tmp_path / "cohort", ["BraTS20_Training_001", "BraTS20_Training_002"])
    shutil.copytree(tmp_path / "cohort", tmp_path / "cohort" / "__MACOSX")
    shutil.copytree(
        tmp_path / "cohort" / "BraTS20_Training_001", tmp_path / "cohort" / ".trash" / "BraTS20_Training_009"
    )
    add_apple_doubles(tmp_path)
    cohort = read_cohort(tmp_path / "cohort")
    assert [case.id for case in cohort.cases] == ["BraTS20_Training_001", "BraTS20_Training_002"]
    np.testing.assert_array_equal(load_scan(cohort.cases[0]).labels, brain(0)[1])


def test_brats_reader_ignores_letter_case(tmp_path):
    folder = write_brats(tmp_path, ["BraTS20_Training_001"]) / "BraTS20_Training_001"
    for name, other in (("t1ce.nii.gz", "T1CE.NII.GZ"), ("t2.nii.gz", "T2.Nii.Gz"), ("seg.nii.gz", "Seg.NII.gz")):
        (folder / f"{folder.name}_{name}").rename(folder / f"{folder.name.upper()}_{other}")
    (case,) = read_cohort(tmp_path).cases
    images, labels = brain(0)
    scan = load_scan(case)
    np.testing.assert_array_equal(scan.image, np.stack([images[m] for m in MODALITIES]))
    np.testing.assert_array_equal(scan.labels, labels)


@pytest.mark.parametrize("name", ["autoseg", "pred_seg", "aparc+aseg", "seg_fast"])
def test_brats_reader_prefers_official_mask_over_similar_names(tmp_path, name):
    folder = write_brats(tmp_path, ["BraTS20_Training_001"]) / "BraTS20_Training_001"
    official = folder / f"{folder.name}_seg.nii.gz"
    save(folder / f"{folder.name}_{name}.nii.gz", np.roll(voxels(official), 3, 0))
    save(folder / "aseg.nii.gz", np.roll(voxels(official), 2, 0))
    assert read_cohort(tmp_path).cases[0].mask.files == (official,)
    official.unlink()
    with pytest.raises(DataError, match="keep or rename one") as caught:
        read_cohort(tmp_path)
    assert all(called in str(caught.value) for called in ("aseg.nii.gz", f"{name}.nii.gz"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("t1ce.nii.gz", "t1ce.nii"),
        ("t1ce.nii.gz", "t1c.nii.gz"),
        ("flair.nii.gz", "t2f.nii.gz"),
        ("seg.nii.gz", "seg.nii"),
    ],
)
def test_brats_reader_accepts_identical_and_rejects_differing_duplicates(tmp_path, one, other):
    folder = write_brats(tmp_path, ["BraTS20_Training_001"]) / "BraTS20_Training_001"
    first, second = folder / f"{folder.name}_{one}", folder / f"{folder.name}_{other}"
    image = voxels(first)
    save(second, image)
    np.testing.assert_array_equal(load_scan(read_cohort(tmp_path, labels="brats").cases[0]).labels, brain(0)[1])
    save(second, np.roll(image, 1, 0))
    with pytest.raises(DataError) as caught:
        read_cohort(tmp_path)
    assert first.name in str(caught.value)
    assert second.name in str(caught.value)
    assert "which differs; keep or rename one" in str(caught.value)


def test_brats_reader_rejects_differing_case_in_two_folders(tmp_path):
    case = "BraTS20_Training_001"
    write_brats(tmp_path / "HGG", [case])
    shutil.copytree(tmp_path / "HGG", tmp_path / "LGG")
    (tmp_path / "again").symlink_to(tmp_path)
    assert [found.id for found in read_cohort(tmp_path).cases] == [case]
    mask = tmp_path / "LGG" / case / f"{case}_seg.nii.gz"
    save(mask, np.roll(voxels(mask), 1, 0))
    with pytest.raises(DataError) as caught:
        read_cohort(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path / 'HGG' / case}: holds another case of the name {case} than {tmp_path / 'LGG' / case}; rename one"
    )


def test_brats_reader_rejects_contradicting_mapping_rows(tmp_path):
    write_brats(tmp_path, ["BraTS20_Training_001"])
    (tmp_path / "name_mapping.csv").write_text("id,site\nBraTS20_Training_001,1\nNA,2\nNA,3\nBraTS20_Training_001,1\n")
    assert read_cohort(tmp_path).cases[0].site == "1"
    (tmp_path / "name_mapping_validation.CSV").write_text("id,site\nBraTS20_Training_001,2\n")
    with pytest.raises(DataError) as caught:
        read_cohort(tmp_path)
    first = tmp_path / "name_mapping.csv"
    assert str(caught.value) == (
        f"{tmp_path / 'name_mapping_validation.CSV'}:2: BraTS20_Training_001 is of 2, by {first}:2 of 1; correct one"
    )


def test_brats_reader_reads_resection_cavity_as_background(tmp_path):
    """As scored by the challenge: WT is 1 to 3, TC 1 and 3, ET 3; 4, the resection cavity, is in none of them."""
    case = "BraTS-GLI-02405-100"
    write_brats(tmp_path, [case], names_2023=True)
    labels = brain(0)[1]
    stored = labels.copy()
    stored[:, :, :10] = 4
    save(tmp_path / case / f"{case}-seg.nii.gz", stored)
    found = read_cohort(tmp_path).cases[0]
    assert found.patient == "BraTS-GLI-02405"
    np.testing.assert_array_equal(load_scan(found).labels, np.where(stored == 4, 0, labels))


def test_brats_reader_requires_labels_for_paediatric_names(tmp_path):
    """Of 2023 1 is the core, 2 oedema, 3 enhancing; of 2024 1 is enhancing, 2 and 3 the core, 4 oedema."""
    case = "BraTS-PED-00001-000"
    write_brats(tmp_path, [case], names_2023=True)
    labels = brain(0)[1]
    with pytest.raises(DataError) as caught:
        read_cohort(tmp_path)
    assert f"the name of {case}" in str(caught.value)
    assert all(part in str(caught.value) for part in ("--labels", *SCHEMES, "1 enhancing tumour"))
    np.testing.assert_array_equal(load_scan(read_cohort(tmp_path, labels="brats2023").cases[0]).labels, labels)
    save(tmp_path / case / f"{case}-seg.nii.gz", np.array([0, 2, 4, 1], np.uint8)[labels])
    np.testing.assert_array_equal(load_scan(read_cohort(tmp_path, labels="brats2024-ped").cases[0]).labels, labels)
    save(tmp_path / case / f"{case}-seg.nii.gz", np.array([0, 3, 4, 1], np.uint8)[labels])
    np.testing.assert_array_equal(load_scan(read_cohort(tmp_path, labels="brats2024-ped").cases[0]).labels, labels)
    (tmp_path / case / f"{case}-seg.nii.gz").unlink()
    assert read_cohort(tmp_path).cases[0].mask is None


@pytest.mark.parametrize("case", ["p19", "UCSF-PDGM-0004"])
def test_brats_reader_requires_labels_for_unknown_names(tmp_path, case):
    write_brats(tmp_path, [case])
    with pytest.raises(DataError, match=f"the name of {case} nor its files state"):
        read_cohort(tmp_path)
    (found,) = read_cohort(tmp_path, labels="brats").cases
    assert (found.scheme, found.patient) == (BRATS, case)
    assert read_cohort(tmp_path, with_masks=False).cases[0].mask is not None


def test_brats_reader_reads_radiotherapy_meningiomas(tmp_path):
    case = "BraTS-MEN-RT-0001-1"
    images, labels = brain(0)
    save(tmp_path / case / f"{case}_t1c.nii.gz", images["t1ce"])
    save(tmp_path / case / f"{case}_gtv.nii.gz", (labels > 0).astype(np.uint8))
    (found,) = read_cohort(tmp_path).cases
    assert (found.patient, list(found.images), found.regions) == ("BraTS-MEN-RT-0001", ["t1ce"], ("wt",))
    np.testing.assert_array_equal(load_scan(found).labels, labels > 0)


def test_brats_reader_ignores_named_pipe(tmp_path):
    folder = write_brats(tmp_path, ["BraTS20_Training_001"]) / "BraTS20_Training_001"
    (folder / f"{folder.name}_t2.nii.gz").unlink()
    os.mkfifo(folder / f"{folder.name}_t2.nii.gz")
    assert list(read_cohort(tmp_path).cases[0].images) == ["t1", "t1ce", "flair"]


def test_load_scan_reports_broken_link(tmp_path):
    folder = write_brats(tmp_path, ["BraTS20_Training_001"]) / "BraTS20_Training_001"
    file = folder / f"{folder.name}_t2.nii.gz"
    file.unlink()
    file.symlink_to("../annex/1b2c")
    with pytest.raises(DataError, match=r"_t2\.nii\.gz: is a link to \.\./annex/1b2c, which is not there"):
        load_scan(read_cohort(tmp_path).cases[0])


def test_brats_reader_reads_upenn_gbm_names(tmp_path):
    case = "UPENN-GBM-00001_11"
    images, labels = brain(0)
    for name, modality in (("T1", "t1"), ("T1GD", "t1ce"), ("T2", "t2"), ("FLAIR", "flair")):
        save(tmp_path / case / f"{case}_{name}.nii.gz", images[modality])
    save(tmp_path / case / f"{case}_segm.nii.gz", np.array([0, 1, 2, 4], np.uint8)[labels])
    scan = load_scan(read_cohort(tmp_path, labels="brats").cases[0])
    assert scan.modalities == ("t1", "t1ce", "t2", "flair")
    np.testing.assert_array_equal(scan.image[1], images["t1ce"])
    np.testing.assert_array_equal(scan.labels, labels)


def test_brats_reader_reads_mapping_with_semicolons(tmp_path):
    write_brats(tmp_path, ["BraTS20_Training_001", "BraTS20_Training_002"])
    rows = ["Grade;id;Site No", "HGG;BraTS20_Training_001;3", "LGG;BraTS20_Training_002;7"]
    (tmp_path / "name_mapping.csv").write_text("\r\n".join(rows), encoding="utf-8-sig")
    assert [case.site for case in read_cohort(tmp_path).cases] == ["3", "7"]

import gzip
import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tifffile

from ganseg_dist.data.checks.case_checks import check_case
from ganseg_dist.data.checks.cohort_checks import check_cohort, expected_modalities
from ganseg_dist.data.checks.finding import COHORT, CaseReport
from ganseg_dist.data.cohort import Case, Source
from ganseg_dist.data.readers import read_cohort
from ganseg_dist.records import validated
from tests.data.cohorts import (
    AFFINE,
    SHAPE,
    brain,
    read_rows,
    reorient_file,
    save,
    voxels,
    write_brats,
    write_decathlon,
    write_kaggle,
    write_manifest,
    write_nnunet,
    write_rows,
)

PATIENTS = ("ada", "ben", "cleo")


@pytest.fixture(scope="session")
def good_cohort(tmp_path_factory):
    return write_manifest(tmp_path_factory.mktemp("good"), PATIENTS).parent


@pytest.fixture
def cohort(good_cohort, tmp_path):
    """A copy of the valid cohort to damage."""
    return shutil.copytree(good_cohort, tmp_path / "cohort")


def findings(root, **needs):
    cohort = read_cohort(root)
    reports = [check_case(case, expected_modalities=expected_modalities(cohort)) for case in cohort.cases]
    return (*(finding for report in reports for finding in report.findings), *check_cohort(cohort, reports, **needs))


def only_finding(root, **needs):
    found = findings(root, **needs)
    assert len(found) == 1, [finding.line() for finding in found]
    return found[0]


def edit_voxels(file, edit, affine=AFFINE):
    save(file, edit(voxels(file)), affine)


def test_check_finds_nothing_in_valid_cohort(good_cohort):
    assert findings(good_cohort) == ()
    assert findings(good_cohort, needs_skull_stripping=True) == ()


def test_finding_line_has_case_file_problem_and_remedy(cohort):
    (cohort / "ben" / "t2.nii.gz").unlink()
    finding = only_finding(cohort)
    assert finding.line() == (
        f"error: ben: {cohort / 'ben' / 't2.nii.gz'}: no such file; check the name or leave the case out"
    )
    assert json.loads(json.dumps(asdict(finding)))["check"] == "unreadable"


def truncate(file):
    file.write_bytes(file.read_bytes()[:-2000])


def damage(file):
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 200] = bytes(200)
    file.write_bytes(content)


@pytest.mark.parametrize("name", ["flair.nii.gz", "lesion.nii.gz"])
@pytest.mark.parametrize(
    "spoil",
    [truncate, damage, lambda file: file.write_text("not an image\n" * 50), lambda file: file.write_bytes(b"")],
    ids=["truncated", "damaged", "text", "empty"],
)
def test_check_reports_unreadable_file(cohort, spoil, name):
    if name == "lesion.nii.gz":  # too small to lose 2000 bytes
        save(cohort / "ben" / name, np.random.default_rng(0).integers(0, 2, SHAPE).astype(np.float64))
    spoil(cohort / "ben" / name)
    finding = only_finding(cohort)
    assert (finding.case, finding.check, finding.severity) == ("ben", "unreadable", "error")
    assert finding.file == str(cohort / "ben" / name)


def test_check_reports_truncated_uncompressed_file(cohort):
    file = save(cohort / "ben" / "t1.nii", voxels(cohort / "ben" / "t1.nii.gz"))
    truncate(file)
    rows = read_rows(cohort / "manifest.csv")
    rows[1]["t1"] = "ben/t1.nii"
    write_rows(cohort / "manifest.csv", rows)
    assert only_finding(cohort).check == "unreadable"


@pytest.mark.parametrize("name", ["t1.nii.gz", "t2.nii.gz", "lesion.nii.gz"])
def test_check_reports_other_shape(cohort, name):
    edit_voxels(cohort / "cleo" / name, lambda v: v[:, :-1])
    finding = only_finding(cohort)
    assert (finding.case, finding.check, finding.file) == ("cleo", "shape", str(cohort / "cleo" / name))
    assert "(40, 47, 32)" in finding.problem


@pytest.mark.parametrize("name", ["t1.nii.gz", "t2.nii.gz", "lesion.nii.gz"])
def test_check_reports_other_affine(cohort, name):
    moved = AFFINE.copy()
    moved[0, 3] = 6.0
    edit_voxels(cohort / "cleo" / name, lambda v: v, moved)
    finding = only_finding(cohort)
    assert (finding.case, finding.check, finding.file) == ("cleo", "affine", str(cohort / "cleo" / name))
    assert "6.0 mm" in finding.problem


def test_check_ignores_affine_rounding(cohort):
    edit_voxels(cohort / "cleo" / "t2.nii.gz", lambda v: v, AFFINE + np.diag([1e-4, 0, 0, 0]))
    assert findings(cohort) == ()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_check_reports_non_finite_voxels(cohort, value):
    def spoil(image):
        image = image.astype(np.float32)
        image[20, 20, 10:13] = value
        return image

    edit_voxels(cohort / "cleo" / "flair.nii.gz", spoil)
    finding = only_finding(cohort)
    assert (finding.case, finding.check) == ("cleo", "non-finite")
    assert "flair has 3 voxels" in finding.problem


@pytest.mark.parametrize("stored", [2, 4])
def test_check_reports_unknown_labels(cohort, stored):
    edit_voxels(cohort / "cleo" / "lesion.nii.gz", lambda mask: mask * np.uint8(stored))
    finding = only_finding(cohort)
    assert (finding.case, finding.check) == ("cleo", "labels")
    assert finding.problem == f"unknown label values {stored}; known are 0, 1"


@pytest.mark.parametrize("value", [0, 300])
def test_check_reports_constant_volume(cohort, value):
    for patient in ("ada", "cleo"):  # two alike are two constant volumes, not a duplicate
        edit_voxels(cohort / patient / "t1.nii.gz", lambda image: np.full_like(image, value))
    found = findings(cohort)
    assert [(finding.case, finding.check) for finding in found] == [("ada", "constant"), ("cleo", "constant")]


def test_check_warns_of_empty_mask(cohort):
    edit_voxels(cohort / "ada" / "lesion.nii.gz", np.zeros_like)
    finding = only_finding(cohort)
    assert (finding.case, finding.check, finding.severity) == ("ada", "empty-mask", "warning")


def test_check_warns_of_missing_mask_unless_all_lack_one(cohort):
    rows = read_rows(cohort / "manifest.csv")
    rows[0]["mask"] = ""
    write_rows(cohort / "manifest.csv", rows)
    finding = only_finding(cohort)
    assert (finding.case, finding.check, finding.severity) == ("ada", "missing-mask", "warning")
    write_rows(cohort / "manifest.csv", [row | {"mask": ""} for row in rows])
    assert findings(cohort) == (), "a cohort without any mask is unlabelled by intention"


def test_check_reports_missing_modality(tmp_path):
    write_brats(tmp_path, [f"BraTS20_Training_00{n}" for n in (1, 2, 3)])
    (tmp_path / "BraTS20_Training_002" / "BraTS20_Training_002_t1ce.nii.gz").unlink()
    finding = only_finding(tmp_path)
    assert (finding.case, finding.check, finding.severity) == ("BraTS20_Training_002", "missing-modality", "error")
    assert finding.problem == "has no t1ce, which other cases have"


def test_check_warns_of_rare_modality(tmp_path):
    cases = [f"BraTS20_Training_00{n}" for n in (1, 2, 3)]
    write_brats(tmp_path, cases)
    for case in cases[:2]:
        (tmp_path / case / f"{case}_t2.nii.gz").unlink()
    assert expected_modalities(read_cohort(tmp_path)) == ("t1", "t1ce", "flair")
    finding = only_finding(tmp_path)
    assert (finding.case, finding.check, finding.severity) == (COHORT, "rare-modality", "warning")
    assert finding.problem == "1 of 3 cases have t2, so training ignores it"


def test_check_warns_of_copied_modality(cohort):
    shutil.copy(cohort / "ben" / "t1.nii.gz", cohort / "ben" / "t1ce.nii.gz")
    finding = only_finding(cohort)
    assert (finding.case, finding.check, finding.severity) == ("ben", "copied-modality", "warning")
    assert finding.problem == "t1ce is a copy of t1"


def test_check_warns_of_copied_picture_channel(tmp_path):
    write_kaggle(tmp_path, ["TCGA_CS_4941_19960909", "TCGA_CS_4942_19960909"])
    assert findings(tmp_path) == ()
    for file in (tmp_path / "TCGA_CS_4942_19960909").glob("*.tif"):
        if "mask" not in file.name:
            plane = tifffile.imread(file)
            plane[..., 0] = plane[..., 1]  # the public set fills a missing T1 with FLAIR
            tifffile.imwrite(file, plane)
    finding = only_finding(tmp_path)
    assert (finding.check, finding.problem) == ("copied-modality", "flair is a copy of t1")


@pytest.mark.parametrize("content", [b"", b"not a picture", None], ids=["empty", "text", "truncated"])
def test_check_names_unreadable_slice(tmp_path, content):
    write_kaggle(tmp_path, ["TCGA_CS_4941_19960909"])
    file = tmp_path / "TCGA_CS_4941_19960909" / "TCGA_CS_4941_19960909_7_mask.tif"
    file.write_bytes(file.read_bytes()[:-100] if content is None else content)
    finding = only_finding(tmp_path)
    assert (finding.check, finding.file) == ("unreadable", str(file))


def test_check_reports_image_of_two_patients(cohort):
    shutil.copy(cohort / "ada" / "t2.nii.gz", cohort / "cleo" / "t2.nii.gz")
    found = [finding for finding in findings(cohort) if finding.check != "unregistered"]
    assert [(finding.case, finding.check, finding.severity) for finding in found] == [
        ("cleo", "duplicate-image", "error")
    ]
    assert "case ada of patient ada" in found[0].problem


def test_check_reports_reoriented_image_of_two_patients(cohort):
    shutil.copy(cohort / "ada" / "t2.nii.gz", cohort / "cleo" / "t2.nii.gz")
    reorient_file(cohort / "cleo" / "t2.nii.gz")
    found = [finding for finding in findings(cohort) if finding.check != "unregistered"]
    assert [(finding.case, finding.check, finding.severity) for finding in found] == [
        ("cleo", "duplicate-image", "error")
    ]
    assert "t2 is the same image as in case ada of patient ada" in found[0].problem


@pytest.mark.parametrize("skull", [False, True], ids=["brain", "head"])
def test_check_case_ignores_axis_order(tmp_path, skull):
    (case,) = read_cohort(write_manifest(tmp_path, ["ada"], skulls=["ada"] if skull else [])).cases
    mask = case.mask.files[0]
    save(mask, np.roll(voxels(mask), 25, 1))
    wanted = check_case(case)
    assert [finding.check for finding in wanted.findings] == ([] if skull else ["mask-outside"])  # a head is larger
    assert wanted.skull_stripped is not skull
    for file in tmp_path.glob("ada/*"):
        reorient_file(file)
    assert check_case(case) == wanted


def test_check_reports_duplicated_patient_with_other_bytes(cohort):
    for file in (cohort / "ada").iterdir():
        edit_voxels(file, lambda v: v)
        save(cohort / "cleo" / file.name, voxels(file).astype(np.float32))  # other bytes, the same voxels
    finding = only_finding(cohort)
    assert (finding.case, finding.check, finding.severity) == ("cleo", "duplicate-image", "error")


def test_check_reports_case_listed_twice(cohort):
    rows = read_rows(cohort / "manifest.csv")
    write_rows(cohort / "manifest.csv", [*rows, rows[0] | {"case": "ada-again"}])
    finding = only_finding(cohort)
    assert (finding.case, finding.check) == ("ada-again", "duplicate-case")
    assert "case ada of the same patient" in finding.problem


def test_check_warns_of_masks_with_a_single_label(tmp_path):
    root = write_brats(tmp_path, ["BraTS20_Training_001", "BraTS20_Training_002", "BraTS20_Training_003"])
    assert "single-label" not in {finding.check for finding in findings(root)}
    for file in root.glob("*/*_seg.nii.gz"):
        edit_voxels(file, lambda mask: (mask > 0).astype(np.uint8))
    (doubt,) = (finding for finding in findings(root) if finding.check == "single-label")
    assert (doubt.case, doubt.severity) == (COHORT, "warning")
    assert doubt.problem == "all 3 masks that mark something hold 1 (necrotic core) alone"


def test_check_reports_mask_outside_brain(cohort):
    edit_voxels(cohort / "ben" / "lesion.nii.gz", lambda mask: np.roll(mask, (-12, 22), (0, 1)))
    finding = only_finding(cohort)
    assert (finding.case, finding.check, finding.severity) == ("ben", "mask-outside", "error")


def test_check_reports_many_masks_outside_as_cohort_finding(cohort):
    """As with lungs, whose lesions lie in air: leaving those cases out would leave no training data."""
    for case in PATIENTS:
        edit_voxels(cohort / case / "lesion.nii.gz", lambda mask: np.roll(mask, (-12, 22), (0, 1)))
    found = {finding.check: finding for finding in findings(cohort)}
    assert set(found) == {"mask-outside", "no-heads"}
    assert (found["no-heads"].case, found["no-heads"].severity) == (COHORT, "error")
    assert found["no-heads"].problem.startswith("3 of 3 masks lie outside the detected head or brain")


def test_check_reports_inverted_mask_of_scan(cohort):
    edit_voxels(cohort / "ben" / "lesion.nii.gz", lambda mask: 1 - mask)
    finding = only_finding(cohort)
    assert (finding.case, finding.check, finding.severity) == ("ben", "inverted-mask", "error")
    assert finding.problem.startswith("the mask may be inverted: it covers ")


def test_check_warns_of_mask_covering_whole_brain(cohort):
    brain_mask = (voxels(cohort / "ben" / "t1.nii.gz") > 0).astype(np.uint8)
    save(cohort / "ben" / "lesion.nii.gz", brain_mask)
    finding = only_finding(cohort)
    assert (finding.case, finding.check, finding.severity) == ("ben", "large-mask", "warning")
    assert finding.problem == "the mask covers 100% of the head or brain"


def test_check_reports_scan_copied_as_mask(cohort):
    file = cohort / "ben" / "lesion.nii.gz"
    shutil.copyfile(cohort / "ben" / "t1.nii.gz", file)
    finding = only_finding(cohort)
    assert (finding.check, finding.severity, finding.file) == ("copied-mask", "error", str(file))


def test_check_warns_of_unregistered_modality(cohort):
    edit_voxels(cohort / "ben" / "flair.nii.gz", lambda image: np.roll(image, 4, 1))
    finding = only_finding(cohort)
    assert (finding.case, finding.check, finding.severity) == ("ben", "unregistered", "warning")
    assert finding.file == str(cohort / "ben" / "flair.nii.gz")
    assert "a shift along axis 1" in finding.problem


def test_check_warns_of_head_among_brains(tmp_path):
    root = write_manifest(tmp_path, PATIENTS, skulls=["cleo"]).parent
    finding = only_finding(root)
    assert (finding.case, finding.check, finding.severity) == ("cleo", "not-skull-stripped", "warning")
    assert "HD-BET" in finding.remedy
    assert "SynthStrip" in finding.remedy


def test_check_accepts_heads_unless_skull_stripping_is_needed(tmp_path):
    root = write_manifest(tmp_path, PATIENTS[:2], skulls=PATIENTS[:2]).parent
    assert findings(root) == ()
    found = findings(root, needs_skull_stripping=True)
    assert [(finding.case, finding.check) for finding in found] == [
        ("ada", "not-skull-stripped"),
        ("ben", "not-skull-stripped"),
    ]


def test_check_ignores_skulls_of_synthetic_folder(tmp_path):
    root = write_manifest(tmp_path, PATIENTS[:2], skulls=PATIENTS[:1]).parent
    assert [finding.check for finding in findings(root)] == ["not-skull-stripped"]
    (root / "SYNTHETIC.json").write_text("{}")
    assert findings(root) == ()
    assert findings(root, needs_skull_stripping=True) == ()


def test_check_case_reports_each_modality_when_all_are_unreadable(cohort):
    for modality in ("t1", "t1ce", "t2", "flair"):
        (cohort / "ada" / f"{modality}.nii.gz").write_text("")
    report = check_case(read_cohort(cohort).cases[0])
    assert [finding.check for finding in report.findings] == ["unreadable"] * 4
    assert report.digests == {}
    assert report.skull_stripped is None


def test_check_case_reports_unexpected_exception_as_finding(cohort, monkeypatch):
    def fails(_):
        raise FloatingPointError("overflow\nin a sum")

    monkeypatch.setattr("ganseg_dist.data.checks.case_checks.foreground_mask", fails)
    report = check_case(read_cohort(cohort).cases[0])
    assert [(finding.case, finding.check, finding.severity) for finding in report.findings] == [
        ("ada", "unchecked", "error")
    ]
    assert report.findings[0].problem == "cannot be checked (overflow)"


def test_check_reports_singular_affine(cohort):
    file = cohort / "ben" / "t2.nii.gz"
    content = bytearray(nib.load(file).to_bytes())
    content[280:328] = bytes(48)  # the rows of its sform
    file.write_bytes(gzip.compress(bytes(content)))
    finding = only_finding(cohort)
    assert (finding.case, finding.file, finding.severity) == ("ben", str(file), "error")
    assert finding.problem.startswith("affine is zero, NaN or singular")


def test_check_cohort_accepts_reports_read_from_json(cohort):
    shutil.copy(cohort / "ada" / "t1.nii.gz", cohort / "ada" / "t2.nii.gz")
    found = read_cohort(cohort)
    reports = [check_case(case) for case in found.cases]
    again = [validated(CaseReport, json.loads(json.dumps(asdict(report))), Path("report.json")) for report in reports]
    assert again == reports
    assert again[0].findings
    assert check_cohort(found, [again[0]] * len(found.cases)) == check_cohort(found, [reports[0]] * len(found.cases))
    assert len(check_cohort(found, [again[0]] * len(found.cases))) == len(PATIENTS) - 1


def test_check_case_digests_depend_on_voxels_only(tmp_path):
    image = brain(0)[0]["t1"]
    for name, stored in {"a": image, "b": image.astype(np.float32), "c": image + np.int16(1)}.items():
        save(tmp_path / f"{name}.nii.gz", stored)
    (tmp_path / "d.nii.gz").write_bytes(nib.Nifti1Image(image, AFFINE).to_bytes())
    rows = [{"case": c, "patient": c, "t1": f"{c}.nii.gz"} for c in "abc"]
    cases = read_cohort(write_rows(tmp_path / "m.csv", rows)).cases
    a, b, c = (check_case(case).digests["t1"] for case in cases)
    assert a == b != c


@pytest.mark.slow
def test_check_finds_nothing_in_real_scans(shared_data, tmp_path):
    lgg = read_cohort(shared_data / "lgg")
    for case in lgg.cases[::6]:
        assert check_case(case, expected_modalities=lgg.modalities).findings == (), case.id
    (tmp_path / "there").symlink_to(shared_data)
    ms = tmp_path / "there" / "ms" / "patient19"
    columns = {"t1": "T1_*", "t1ce": "T1POST_*", "t2": "T2_*", "flair": "FLAIR_*", "mask": "GOLD_*"}
    files = {name: next(ms.glob(pattern)).relative_to(tmp_path) for name, pattern in columns.items()}
    row = {"case": "ms19", "patient": "ms19"} | files
    assert findings(write_rows(tmp_path / "ms.csv", [row])) == ()
    oasis = sorted((tmp_path / "there" / "oasis").glob("*.nii.gz"))[:2]
    rows = [{"case": file.name, "patient": file.name, "t1": file.relative_to(tmp_path)} for file in oasis]
    assert findings(write_rows(tmp_path / "oasis.csv", rows), needs_skull_stripping=True) == ()


def write_gliomas(root, values):
    """Two cases named as in BraTS 2023 and 2024; the values of the core, oedema, enhancing tumour and a cavity."""
    cases = ["BraTS-GLI-00001-100", "BraTS-GLI-00002-100"]
    write_brats(root, cases, names_2023=True)
    for number, case in enumerate(cases):
        stored = np.array((0, *values[:3]), np.uint8)[brain(number)[1]]
        if number and len(values) > 3:
            stored[10:13, 20:24, 14:16] = values[3]
        save(root / case / f"{case}-seg.nii.gz", stored)
    return root


def test_check_warns_of_resection_cavity_read_as_background(tmp_path):
    assert findings(write_gliomas(tmp_path / "before", (1, 2, 3))) == ()
    finding = only_finding(write_gliomas(tmp_path / "after", (1, 2, 3, 4)))
    assert (finding.check, finding.severity) == ("read-as-background", "warning")
    assert finding.problem == "1 mask(s) hold 4 (resection cavity), which is read as background"


def test_check_reports_doubtful_labels_of_2021_under_2024_names(tmp_path):
    write_gliomas(tmp_path, (1, 2, 4))
    found = {finding.check: finding for finding in findings(tmp_path)}
    assert found["doubtful-labels"].severity == "error"
    assert "--labels brats2024-gli or --labels brats" in found["doubtful-labels"].remedy
    for labels in ("brats", "brats2024-gli"):
        cohort = read_cohort(tmp_path, labels=labels)
        reports = [check_case(case) for case in cohort.cases]
        assert "doubtful-labels" not in {finding.check for finding in check_cohort(cohort, reports)}
    report = check_case(read_cohort(tmp_path).cases[0])
    assert report.mask_values == (1, 2, 4)
    assert validated(CaseReport, json.loads(json.dumps(asdict(report))), Path("report.json")) == report


def test_check_warns_of_two_layouts(cohort):
    write_brats(cohort, ["BraTS20_Training_001"])
    found = {finding.check: finding for finding in findings(cohort)}
    assert found["two-layouts"].problem == "matches layout brats too, and is read as manifest"
    assert found["two-layouts"].remedy == "name the one that is meant, as in --layout manifest"


def test_check_ignores_system_folders_and_warns_of_empty_folder(tmp_path):
    write_brats(tmp_path, ["BraTS20_Training_001", "BraTS20_Training_002"])
    for name in (".ipynb_checkpoints", "__MACOSX", "@eaDir"):
        save(tmp_path / name / "t1.nii.gz", np.zeros(SHAPE, np.int16))
    (tmp_path / "loop").symlink_to(tmp_path)
    assert findings(tmp_path) == ()
    (tmp_path / "extra").mkdir()
    (tmp_path / "extra" / ".DS_Store").touch()
    assert only_finding(tmp_path).problem == "is an empty folder"


@pytest.mark.parametrize("write", [write_nnunet, write_decathlon])
def test_check_ignores_test_images_of_data_set(tmp_path, write):
    labels = {"background": 0, "oedema": 1, "NCR": 2, "ET": 3} if write is write_nnunet else None
    write(tmp_path, ["a", "b"], labels)
    save(tmp_path / "imagesTs" / "c_0000.nii.gz", brain(3)[0]["t1"])
    assert findings(tmp_path) == ()


def ct_volume(seed=0):
    """A chest: air around and in it, soft tissue, some bone; whole numbers of Hounsfield units."""
    rng = np.random.default_rng(seed)
    volume = rng.normal(-1000, 15, SHAPE)
    volume[8:32, 8:40] = rng.normal(40, 30, (24, 32, SHAPE[2]))
    volume[12:20, 12:36] = rng.normal(-860, 60, (8, 24, SHAPE[2]))
    volume[25:27, 20:22] = 700
    return volume.round()


def ct_findings(root):
    return [finding for finding in findings(root) if finding.check == "ct"]


@pytest.mark.parametrize("name", ["CT", "ct_portal", "NCCT", "Computed Tomography"])
def test_check_warns_once_of_ct_by_name(tmp_path, name):
    root = write_nnunet(tmp_path, ["a", "b"], {"background": 0, "tumour": [1, 2, 3]})
    described = json.loads((root / "dataset.json").read_text())
    described["channel_names"]["1"] = name
    (root / "dataset.json").write_text(json.dumps(described))
    (finding,) = ct_findings(root)
    assert (finding.case, finding.severity) == ("", "warning")
    assert "is CT by its name; training scales every channel as MRI" in finding.problem


@pytest.mark.parametrize("padding", [None, -2000, -3024])
def test_check_warns_once_of_ct_by_voxels(cohort, padding):
    for patient in PATIENTS[:3]:
        volume = ct_volume()
        if padding is not None:
            volume[:4] = padding
        save(cohort / patient / "t2.nii.gz", volume.astype(np.int16))
    (finding,) = ct_findings(cohort)
    assert "t2 is probably CT, in Hounsfield units, in 3 cases; training scales every channel" in finding.problem


@pytest.mark.parametrize(
    "volume",
    [
        ct_volume() + 0.3,  # no whole numbers
        ct_volume() + 1024,  # no air at -1000: may be anything
        np.random.default_rng(0).integers(-4096, 4096, SHAPE),  # the phase of an MRI
        np.random.default_rng(0).normal(0, 350, SHAPE).round(),  # a difference of two images
        np.where(np.arange(SHAPE[2]) < 20, -1000, 3000) * np.ones(SHAPE),  # no soft tissue
    ],
    ids=["fractions", "offset", "phase", "difference", "two-valued"],
)
def test_check_ignores_negative_volumes_that_are_no_ct(cohort, volume):
    save(cohort / "ada" / "t2.nii.gz", volume.astype(np.float32))
    assert ct_findings(cohort) == []


@pytest.mark.parametrize("name", ["t1ct", "cT1", "t1ct1", "spect", "contrast", "act", "t1ce"])
def test_check_ignores_names_that_only_contain_ct(tmp_path, name):
    file = save(tmp_path / "a.nii.gz", brain(0)[0]["t1"]).name
    assert ct_findings(write_rows(tmp_path / "list.csv", [{"case": "a", "patient": "a", name: file}])) == []


def test_check_recognises_real_ct_only(shared_data):
    cohort = read_cohort(shared_data / "lungct")
    some = replace(cohort, cases=cohort.cases[:20])
    reports = [check_case(case) for case in some.cases]
    assert sum(report.hounsfield == ("ct",) for report in reports) >= 19
    (finding,) = (finding for finding in check_cohort(some, reports) if finding.check == "ct")
    assert "ct is CT by its name" in finding.problem
    for folder, files in (("ms", "*/*.nii*"), ("oasis", "100*.nii.gz"), ("hippocampus", "imagesTr/*_00*.nii.gz")):
        for file in sorted((shared_data / folder).glob(files))[:3]:
            assert check_case(Case(file.name, file.name, "s", {"image": Source((file,))})).hounsfield == ()

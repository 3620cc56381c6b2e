import json
import os
import unicodedata

import numpy as np
import pytest
import tifffile

from ganseg_dist.data.cohort import UNKNOWN_SITE
from ganseg_dist.data.labels import BRATS_REGIONS, SCHEMES
from ganseg_dist.data.readers import read_cohort
from ganseg_dist.data.scan import load_scan
from ganseg_dist.errors import ConfigError, DataError
from ganseg_dist.registry import reader_names
from tests.data.cohorts import MODALITIES, brain, save, write_brats, write_manifest, write_rows


def test_manifest_reader_keeps_row_order(tmp_path):
    file = write_manifest(tmp_path, ["zoe", "adam"])
    cohort = read_cohort(file)
    assert cohort == read_cohort(file, "manifest")
    assert cohort.cases == read_cohort(tmp_path).cases
    assert [(case.id, case.patient, case.site) for case in cohort.cases] == [
        ("zoe", "zoe", "hospital0"),
        ("adam", "adam", "hospital1"),
    ]
    images, labels = brain(1)
    scan = load_scan(cohort.cases[1], MODALITIES)
    np.testing.assert_array_equal(scan.image, np.stack([images[m] for m in MODALITIES]))
    np.testing.assert_array_equal(scan.labels, labels > 0)


def test_manifest_mask_site_and_labels_are_optional(tmp_path):
    file = write_rows(tmp_path / "list.csv", [{"case": "a", "patient": "p", "T1w": "x.nii.gz"}])
    case = read_cohort(file).cases[0]
    assert (case.mask, case.site, list(case.images), case.regions) == (None, UNKNOWN_SITE, ["t1"], ("wt",))
    assert case.images["t1"].files == (tmp_path / "x.nii.gz",)
    rows = [{"case": "a", "patient": "p", "site": "", "mask": "", "t1": "x.nii.gz"}]
    assert read_cohort(write_rows(file, rows)).cases[0] == case


@pytest.mark.parametrize(("scheme", "stored"), [("brats", 4), ("brats2023", 3)])
def test_manifest_labels_column_selects_scheme(tmp_path, scheme, stored):
    images, labels = brain(0)
    save(tmp_path / "t1.nii.gz", images["t1"])
    save(tmp_path / "seg.nii.gz", np.where(labels == 3, stored, labels).astype(np.uint8))
    rows = [{"case": "a", "patient": "p", "t1": "t1.nii.gz", "mask": "seg.nii.gz", "labels": scheme}]
    case = read_cohort(write_rows(tmp_path / "m.csv", rows)).cases[0]
    assert case.regions == BRATS_REGIONS
    np.testing.assert_array_equal(load_scan(case).labels, labels)


def test_manifest_class_and_part_columns_are_read(tmp_path):
    rows = [
        {"case": "a", "patient": "p", "t1": "a.nii", "class": "glioma", "part": "test"},
        {"case": "b", "patient": "q", "t1": "b.nii", "class": "none", "part": "Train"},
        {"case": "c", "patient": "r", "t1": "c.nii", "class": "", "part": ""},
    ]
    cohort = read_cohort(write_rows(tmp_path / "m.csv", rows))
    assert [(case.class_name, case.part) for case in cohort.cases] == [
        ("glioma", "test"),
        ("none", "train"),
        (None, None),
    ]
    assert cohort.modalities == ("t1",)
    rows[2]["part"] = "validation"
    with pytest.raises(DataError, match=r"m.csv:4: part validation is not known; write train or test"):
        read_cohort(write_rows(tmp_path / "m.csv", rows))


def test_manifest_reads_channel_and_slice_stack(tmp_path):
    images, labels = brain(0)
    save(tmp_path / "both.nii.gz", np.stack([images["t1"], images["flair"]], -1))
    for z in range(labels.shape[2]):
        tifffile.imwrite(tmp_path / f"s{z}.tif", labels[:, :, z] // 2)
    rows = [{"case": "a", "patient": "p", "flair": "both.nii.gz#1", "t2": "s*.tif"}]
    case = read_cohort(write_rows(tmp_path / "m.csv", rows)).cases[0]
    scan = load_scan(case, ("flair", "t2"))
    np.testing.assert_array_equal(scan.image[0], images["flair"])
    np.testing.assert_array_equal(scan.image[1], labels // 2)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "1: has no column case"),
        ("case;patient;t1\na;p;x\n", "1: has no column case .found: case;patient;t1."),
        ("case,t1\na,x\n", "1: has no column patient"),
        ("case,patient,mask\na,p,m\n", "1: has no modality column"),
        ("case,patient,t1,T1w\na,p,x,y\n", "1: column t1 is repeated"),
        ("case,patient,t1\na,p,x\nb,p,\n", "3: t1 is empty"),
        ("case,patient,t1\n,p,x\n", "2: case is empty"),
        ("case,patient,t1\na,p,x\n\na,q,y\n", "4: case a is listed twice"),
        ("case,patient,t1\na,p,x,y\n", "2: has 4 cells, the header 3"),
        ("case,patient,t1,labels\na,p,x,msd\n", "2: labels msd is not known; write one of binary, brats, brats2023"),
        ("case,patient,t1\na,p,../x.nii\n", r"2: path '\.\./x\.nii' leads out of its folder; write paths relative to"),
        ("case,patient,t1\na,p,x\nb,p,/abs/x.nii#1\n", "3: path '/abs/x.nii' is not relative; write paths relative to"),
        ("case,patient,t1\na,p,a/../../x/*.png\n", "2: path 'a/../../x/.*' leads out of its folder"),
        ("case,patient,t1,mask\na,p,x,C:\\m.nii\n", r"2: path 'C:.*' is not relative"),
        ("case,patient,t1\na,p,s*.png\n", r"2: no file matches s\*.png"),
        ("case,patient,t1\na,p,**x.nii\n", r"2: \*\*x.nii is no pattern"),
        (f"case,patient,t1\na,p,{'x' * 200_000}\n", "cannot be read as CSV .field larger than"),
    ],
)
def test_manifest_reader_names_malformed_line(tmp_path, text, problem):
    file = tmp_path / "list.csv"
    file.write_text(text)
    with pytest.raises(DataError, match=problem) as caught:
        read_cohort(file)
    assert str(caught.value).startswith(f"{file}:")
    assert "\n" not in str(caught.value)


def test_manifest_reader_follows_links(tmp_path):
    save(tmp_path / "elsewhere" / "t1.nii.gz", brain(0)[0]["t1"])
    (tmp_path / "cohort").mkdir()
    (tmp_path / "cohort" / "there").symlink_to(tmp_path / "elsewhere")
    write_rows(tmp_path / "cohort" / "list.csv", [{"case": "a", "patient": "p", "t1": "./there/../there/t1.nii.gz"}])
    scan = load_scan(read_cohort(tmp_path / "cohort" / "list.csv").cases[0])
    np.testing.assert_array_equal(scan.image[0], brain(0)[0]["t1"])


def test_manifest_takes_precedence_over_other_layouts(tmp_path):
    write_brats(tmp_path, ["BraTS20_Training_001", "BraTS20_Training_002"])
    t1 = "BraTS20_Training_001/BraTS20_Training_001_t1.nii.gz"
    write_rows(tmp_path / "manifest.csv", [{"case": "a", "patient": "p", "t1": t1}])
    assert [case.id for case in read_cohort(tmp_path).cases] == ["a"]
    assert len(read_cohort(tmp_path, "brats").cases) == 2


def test_read_cohort_reports_unreadable_folder_in_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("hello")
    problems = {
        (tmp_path / "nowhere", None): "no such file or folder",
        (tmp_path / "empty", None): "is an empty folder",
        (tmp_path / "other", None): "no known layout recognised",
        (tmp_path / "other" / "notes.txt", None): "no known layout recognised",
        (tmp_path / "other", "brats"): "holds no cases in layout brats",
        (tmp_path / "other", "dicom"): "layout dicom: no such layout; choose one of",
    }
    for (root, layout), problem in problems.items():
        with pytest.raises((DataError, ConfigError), match=problem) as caught:
            read_cohort(root, layout)
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="CSV manifest") as caught:
        read_cohort(tmp_path / "other")
    assert all(name in str(caught.value) for name in reader_names())


def test_manifest_with_header_only_is_rejected(tmp_path):
    file = tmp_path / "list.csv"
    file.write_text("case,patient,t1\n")
    with pytest.raises(DataError, match="holds no cases in layout manifest"):
        read_cohort(file)


@pytest.mark.parametrize("labels", list(SCHEMES))
def test_manifest_rejects_labels_option_against_labels_column(tmp_path, labels):
    row = {"case": "a", "patient": "p", "t1": "t1.nii.gz", "mask": "seg.nii.gz"}
    file = write_rows(tmp_path / "m.csv", [row])
    assert read_cohort(file, labels=labels).cases[0].scheme == SCHEMES[labels]
    write_rows(file, [{**row, "labels": labels}])
    assert read_cohort(file).cases[0].scheme == SCHEMES[labels]
    assert read_cohort(file, labels=labels).labels == labels
    other = "brats" if labels != "brats" else "binary"
    with pytest.raises(DataError, match=rf"m\.csv:2: labels is {labels}, and --labels differs"):
        read_cohort(file, labels=other)


def test_read_cohort_rejects_unknown_label_scheme(tmp_path):
    with pytest.raises(ConfigError, match=r"--labels brats2032: no such label scheme; did you mean brats2023\?"):
        read_cohort(tmp_path, labels="brats2032")


def test_manifest_pattern_skips_hidden_files(tmp_path):
    for name in ("s1.png", "s2.png", "._s1.png", ".s3.png"):
        (tmp_path / name).touch()
    rows = [{"case": "a", "patient": "p", "t2": "s*.png"}]
    file = write_rows(tmp_path / "m.csv", rows)
    assert [one.name for one in read_cohort(file).cases[0].images["t2"].files] == ["s1.png", "s2.png"]
    write_rows(file, [{"case": "a", "patient": "p", "t2": "*.png"}])
    assert len(read_cohort(file).cases[0].images["t2"].files) == 2


def test_manifest_pattern_rejects_several_volumes(tmp_path):
    for number in range(2):
        save(tmp_path / f"t1_{number}.nii.gz", brain(number)[0]["t1"])
    file = write_rows(tmp_path / "m.csv", [{"case": "a", "patient": "p", "t1": "t1_*.nii.gz"}])
    with pytest.raises(
        DataError, match=r"matches 2 files, t1_0.nii.gz and t1_1.nii.gz among them, which are no slices"
    ):
        read_cohort(file)


@pytest.mark.parametrize("name", ["list.csv", "manifest.csv", "MANIFEST.CSV"])
def test_manifest_reader_rejects_named_pipe(tmp_path, name):
    os.mkfifo(tmp_path / "pipe.nii")
    file = write_rows(tmp_path / name, [{"case": "a", "patient": "p", "t1": "pipe.nii"}])
    with pytest.raises(DataError, match=r"pipe\.nii: cannot be opened \(is not a regular file\)"):
        load_scan(read_cohort(file).cases[0])
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(DataError, match=rf"{name}: cannot be opened \(is not a regular file\)"):
        read_cohort(file)


def test_read_cohort_lists_other_layouts(tmp_path):
    write_brats(tmp_path, ["BraTS20_Training_001"])
    t1 = "BraTS20_Training_001/BraTS20_Training_001_t1.nii.gz"
    write_rows(tmp_path / "manifest.csv", [{"case": "a", "patient": "p", "t1": t1}])
    assert read_cohort(tmp_path).other_layouts == ("brats",)
    assert read_cohort(tmp_path, "manifest").other_layouts == ()


def test_manifest_labels_column_accepts_scheme_file(tmp_path):
    _, labels = brain(0)
    image = save(tmp_path / "a.nii.gz", brain(0)[0]["t1"]).name
    mask = save(tmp_path / "m.nii.gz", np.array([0, 7, 5, 9], np.uint8)[labels]).name
    tissues = {"background": 0, "core": 7, "oedema": 5, "active": 9, "cavity": 3}
    regions = {"wt": ["core", "oedema", "active"], "tc": ["core", "active"], "et": ["active"]}
    (tmp_path / "ours.json").write_text(json.dumps({"labels": tissues, "regions": regions}))
    row = {"case": "a", "patient": "a", "t1": image, "mask": mask, "labels": "ours.json"}
    case = read_cohort(write_rows(tmp_path / "list.csv", [row])).cases[0]
    assert case.scheme.labels == tissues
    np.testing.assert_array_equal(load_scan(case).labels, labels)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (None, "is not readable JSON"),
        ("{", "is not readable JSON"),
        ('{"labels": {"background": 0}}', "is no label scheme"),
        (
            '{"labels": {"background": 0, "a": 1}, "regions": {"liver": ["a"]}}',
            "regions: liver cannot be trained on yet",
        ),
    ],
)
def test_manifest_names_unusable_scheme_file(tmp_path, text, problem):
    if text is not None:
        (tmp_path / "ours.json").write_text(text)
    rows = [{"case": "a", "patient": "a", "t1": "a.nii", "labels": "ours.json"}]
    with pytest.raises(DataError, match=rf"ours\.json: {problem}"):
        read_cohort(write_rows(tmp_path / "list.csv", rows))


@pytest.mark.parametrize("column", ["seg", "Label", "segmentation", "lesion_mask"])
def test_manifest_rejects_mask_column_of_other_name(tmp_path, column):
    row = {"case": "a", "patient": "a", "t1": "a.nii", column: "m.nii"}
    with pytest.raises(DataError, match=f"csv:1: column {column.lower()} would be a modality, .*; call it mask"):
        read_cohort(write_rows(tmp_path / "list.csv", [row]))


@pytest.mark.parametrize(("text", "line"), [('"case\nx",patient,t1\n', 2), ('case,patient,t1\na,a,"a\nb.nii"\n', 3)])
def test_manifest_rejects_multiline_cell(tmp_path, text, line):
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(DataError, match=rf"list.csv:{line}: a cell runs over several lines; close its quotes"):
        read_cohort(tmp_path / "list.csv")


def test_manifest_rejects_misspelt_mask_column(tmp_path):
    row = {"case": "a", "patient": "a", "t1": "a.nii", "maks": "m.nii"}
    with pytest.raises(DataError, match=r"csv:1: column maks would be a modality; did you mean mask\?"):
        read_cohort(write_rows(tmp_path / "list.csv", [row]))
    row |= {"mask": "m.nii"}
    assert read_cohort(write_rows(tmp_path / "list.csv", [row])).modalities == ("t1", "maks")


@pytest.mark.parametrize(("listed", "stored"), [("NFC", "NFD"), ("NFD", "NFC")])
@pytest.mark.parametrize("cell", ["Müller/{}.nii", "Müller/{}*.nii"])
def test_manifest_reader_ignores_unicode_normalisation(tmp_path, listed, stored, cell):
    voxels = brain(0)[0]["t1"]
    save(tmp_path / unicodedata.normalize(stored, "Müller/é.nii"), voxels)
    patients = [unicodedata.normalize(form, "Müller") for form in (listed, stored)]
    image = unicodedata.normalize(listed, cell.format("é"))
    rows = [{"case": f"{n}", "patient": patient, "t1": image} for n, patient in enumerate(patients)]
    cohort = read_cohort(write_rows(tmp_path / "list.csv", rows))
    assert cohort.patients == (unicodedata.normalize("NFC", "Müller"),)
    np.testing.assert_array_equal(load_scan(cohort.cases[0]).image[0], voxels)

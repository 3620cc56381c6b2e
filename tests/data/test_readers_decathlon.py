import json
import unicodedata

import numpy as np
import pytest

from ganseg_dist.data.cohort import UNKNOWN_SITE
from ganseg_dist.data.labels import BINARY_REGIONS, BRATS_REGIONS
from ganseg_dist.data.readers import read_cohort
from ganseg_dist.data.scan import load_scan
from ganseg_dist.errors import DataError
from tests.data.cohorts import brain, save, save_picture, tissue, voxels, write_decathlon, write_nnunet


def test_decathlon_reader_reads_channels_and_labels(tmp_path):
    cohort = read_cohort(write_decathlon(tmp_path, ["BRATS_002", "BRATS_001"]))
    assert cohort.layout == "decathlon"
    assert [case.id for case in cohort.cases] == ["BRATS_001", "BRATS_002"]
    assert cohort.regions == BRATS_REGIONS
    assert cohort.cases[0].site == UNKNOWN_SITE
    images, labels = brain(1)  # written second
    scan = load_scan(cohort.cases[0])
    assert scan.modalities == ("flair", "t1", "t1ce", "t2")
    np.testing.assert_array_equal(scan.image, np.stack([images[m] for m in scan.modalities]))
    np.testing.assert_array_equal(scan.labels, labels)


@pytest.mark.parametrize("field", ["image", "label"])
@pytest.mark.parametrize(
    ("path", "problem"),
    [("../other/a.nii.gz", "leads out of its folder"), ("/abs/a.nii.gz", "is not relative"), (7, "is no text")],
)
def test_decathlon_reader_rejects_paths_outside_data_set(tmp_path, field, path, problem):
    file = write_decathlon(tmp_path, ["a"]) / "dataset.json"
    description = json.loads(file.read_text())
    description["training"][0][field] = path
    file.write_text(json.dumps(description))
    with pytest.raises(DataError) as caught:
        read_cohort(tmp_path)
    remedy = "write paths relative to this file, below its folder"
    assert str(caught.value) == f"{file}: training: path {path!r} {problem}; {remedy}"


def test_nnunet_reader_reads_channels_and_regions(tmp_path):
    cohort = read_cohort(write_nnunet(tmp_path, ["case_b", "case_a"]))
    assert [case.id for case in cohort.cases] == ["case_a", "case_b"]
    assert cohort.regions == BRATS_REGIONS
    images, labels = brain(0)
    scan = load_scan(cohort.cases[1])
    assert scan.modalities == ("t1", "t1ce")
    np.testing.assert_array_equal(scan.image, np.stack([images["t1"], images["t1ce"]]))
    np.testing.assert_array_equal(scan.labels, labels)


def test_nnunet_reader_maps_labels_by_name(tmp_path):
    named = {"background": 0, "oedema": 1, "NCR/NET": 2, "ET": 3}
    cohort = read_cohort(write_nnunet(tmp_path, ["a"], named))
    np.testing.assert_array_equal(load_scan(cohort.cases[0]).labels, brain(0)[1])
    scheme = cohort.cases[0].scheme
    assert scheme.labels == named
    assert scheme.regions == {"wt": ("oedema", "NCR/NET", "ET"), "tc": ("NCR/NET", "ET"), "et": ("ET",)}


def test_nnunet_reader_names_labels_by_region(tmp_path):
    regions = {"background": 0, "whole tumor": [1, 2, 3, 4], "tumor core": [2, 3, 4], "enhancing tumor": [3, 4]}
    scheme = read_cohort(write_nnunet(tmp_path, ["a"], regions)).cases[0].scheme
    enhancing = {"enhancing tumour 3": 3, "enhancing tumour 4": 4}
    assert scheme.labels == {"background": 0, "necrotic core": 2, "oedema": 1, **enhancing}
    assert scheme.regions["et"] == ("enhancing tumour 3", "enhancing tumour 4")
    assert scheme.to_our_labels == {0: 0, 1: 2, 2: 1, 3: 3, 4: 3}


def test_nnunet_reader_rejects_numbered_lesion_labels(tmp_path):
    with pytest.raises(DataError, match="labels background, lesion 1, lesion 2 are not supported"):
        read_cohort(write_nnunet(tmp_path, ["a"], {"background": 0, "lesion 1": 1, "lesion 2": 2}))


def test_nnunet_reader_rejects_multiline_label_name(tmp_path):
    with pytest.raises(DataError, match=r"dataset\.json: is no label scheme .* one printable line"):
        read_cohort(write_nnunet(tmp_path, ["a"], {"background": 0, "a\nb": 1}))


def test_nnunet_v1_reader_reads_one_file_per_channel(tmp_path):
    write_nnunet(tmp_path, ["a"])
    description = {
        "modality": {"0": "T1", "1": "T1ce"},
        "labels": {"0": "background", "1": "edema", "2": "necrosis", "3": "enhancing"},
        "training": [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}],
    }
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    scan = load_scan(read_cohort(tmp_path).cases[0])
    np.testing.assert_array_equal(scan.image[1], brain(0)[0]["t1ce"])


def test_nnunet_reader_reads_single_label_as_binary(tmp_path):
    write_nnunet(tmp_path, ["a"], {"background": 0, "stroke": 2})
    save(tmp_path / "labelsTr" / "a.nii.gz", (2 * (brain(0)[1] > 0)).astype(np.uint8))
    cohort = read_cohort(tmp_path)
    assert cohort.regions == BINARY_REGIONS
    assert cohort.scheme.labels == {"background": 0, "stroke": 2}
    np.testing.assert_array_equal(load_scan(cohort.cases[0]).labels, brain(0)[1] > 0)


def test_decathlon_reader_reads_single_modality_as_3d_file(tmp_path):
    images, labels = brain(0)
    save(tmp_path / "imagesTr" / "a.nii.gz", images["t1"])
    save(tmp_path / "labelsTr" / "a.nii.gz", (labels > 0).astype(np.uint8))
    description = {
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "tumour"},
        "training": [{"image": "imagesTr/a.nii.gz", "label": "labelsTr/a.nii.gz"}],
    }
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    cohort = read_cohort(tmp_path)
    assert cohort.modalities == ("mri",)
    np.testing.assert_array_equal(load_scan(cohort.cases[0]).image[0], images["t1"])


def test_nnunet_reader_rejects_unsupported_labels_by_name(tmp_path):
    with pytest.raises(DataError, match=r"dataset\.json: labels background, Anterior, Posterior are not supported"):
        read_cohort(write_nnunet(tmp_path, ["a"], {"background": 0, "Anterior": 1, "Posterior": 2}))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "is not readable JSON"),
        ('{"modality": {}}', "has no labels"),
        ('{"labels": {"background": 0, "a": 1}}', "has neither channel_names"),
        ('{"labels": {"0": "b", "1": "a"}, "modality": {"0": "T1"}, "training": [{}]}', "needs an image and a label"),
        ('{"labels": {"b": 0, "a": 1}, "channel_names": {"0": "T1"}, "file_ending": ".nrrd"}', "file_ending .nrrd"),
        (
            '{"labels": {"b": 0, "a": 1}, "channel_names": {"0": "T1"}, "file_ending": "/../../x.nii"}',
            "file_ending /..",
        ),
        ('{"labels": {"b": 0, "a": "1"}, "channel_names": {"0": "T1"}}', "labels do not map names to whole numbers"),
        ('{"labels": {"b": 0, "a": 1}, "channel_names": ["T1"]}', "channel_names does not map numbers to names"),
        ('{"labels": {"b": 0, "a": 1}, "channel_names": {}}', "channel_names does not map numbers to names"),
        ('{"labels": {"b": 0, "a": 1}, "channel_names": {"T1": "0"}}', "channel_names maps 'T1' to '0'"),
        ('{"labels": {"b": 0, "a": 1}, "channel_names": {"0": 1}}', "channel_names maps '0' to 1"),
        ('{"labels": {"0": "b", "1": "a"}, "modality": ["T1"], "training": []}', "modality does not map numbers"),
        ('{"labels": {"b": 0, "a": 1}, "modality": {"0": "T1"}, "training": []}', "labels maps 'b' to 0"),
        ('{"labels": {"0": "b", "1": "a"}, "modality": {"0": "T1"}, "training": 5}', "training is no list"),
        ('{"labels": {"b": 0, "a": 1}, "channel_names": {"0": "T1"}, "file_ending": "*.nii"}', "holds no cases"),
    ],
)
def test_decathlon_reader_names_malformed_description(tmp_path, text, problem):
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(DataError, match=problem) as caught:
        read_cohort(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("core", "oedema", "enhancing"),
    [
        ("NCR", "ED", "ET"),
        ("net", "ed", "et"),
        ("NETC", "SNFH", "ET"),
        ("NCR/NET", "peritumoral edema", "GD-enhancing tumor"),
        ("non-enhancing tumor core", "surrounding non-enhancing FLAIR hyperintensity", "enhancing tissue"),
        ("Necrotic core (NCR)", "Peritumoral_Oedema", "active tumour"),
        ("non-contrast-enhancing tumour", "oedema/invasion", "contrast enhancing tumor (ET)"),
        ("core", "whole", "enhancing"),
        ("tumor core", "whole tumor", "enhancing tumor"),
    ],
)
def test_nnunet_reader_maps_common_label_names(tmp_path, core, oedema, enhancing):
    """By single values, a voxel has the value of the innermost region it lies in."""
    named = {"background": 0, oedema: 1, core: 2, enhancing: 3}
    cohort = read_cohort(write_nnunet(tmp_path, ["a"], named))
    np.testing.assert_array_equal(load_scan(cohort.cases[0]).labels, brain(0)[1])


@pytest.mark.parametrize(
    "names", [("whole", "core", "enhancing"), ("WT", "TC", "ET"), ("Whole_Tumour", "tumour_core", "ET")]
)
def test_nnunet_reader_maps_common_region_names(tmp_path, names):
    regions = dict(zip(names, ([1, 2, 3], [2, 3], [3]), strict=True))
    cohort = read_cohort(write_nnunet(tmp_path, ["a"], {"background": 0, **regions}))
    np.testing.assert_array_equal(load_scan(cohort.cases[0]).labels, brain(0)[1])


def test_nnunet_reader_maps_resection_cavity_and_cysts(tmp_path):
    labels = brain(0)[1]
    write_nnunet(tmp_path, ["a"], {"background": 0, "NETC": 1, "CC": 2, "SNFH": 3, "ET": 4, "RC": 5})
    stored = np.array([0, 1, 3, 4], np.uint8)[labels]
    stored[:20][stored[:20] == 1] = 2
    stored[0, 0, 0] = 5
    save(tmp_path / "labelsTr" / "a.nii.gz", stored)
    np.testing.assert_array_equal(load_scan(read_cohort(tmp_path).cases[0]).labels, labels)


@pytest.mark.parametrize(
    "named", [{"whole": 1, "core": 2}, {"NCR": 1, "ED": 2, "vessel": 3}, {"unknown": 1, "ED": 2, "ET": 3}]
)
def test_nnunet_reader_rejects_unknown_label_names(tmp_path, named):
    with pytest.raises(DataError, match="are not supported"):
        read_cohort(write_nnunet(tmp_path, ["a"], {"background": 0, **named}))


def test_nnunet_reader_prefers_given_scheme_over_names(tmp_path):
    write_nnunet(tmp_path, ["a"], {"background": 0, "Anterior": 1, "Posterior": 2, "Other": 3})
    labels = brain(0)[1]
    save(tmp_path / "labelsTr" / "a.nii.gz", labels)
    (case,) = read_cohort(tmp_path, labels="brats2023").cases
    np.testing.assert_array_equal(load_scan(case).labels, labels)


def test_nnunet_reader_accepts_both_channel_keys_if_they_agree(tmp_path):
    write_nnunet(tmp_path, ["a"])
    file = tmp_path / "dataset.json"
    description = json.loads(file.read_text())
    file.write_text(json.dumps({**description, "modality": {"0": "T1w", "1": "T1gd"}}))
    np.testing.assert_array_equal(load_scan(read_cohort(tmp_path).cases[0]).image[1], brain(0)[0]["t1ce"])
    file.write_text(json.dumps({**description, "modality": {"0": "T1gd", "1": "T1w"}}))
    with pytest.raises(DataError, match="channel_names and modality name other channels; keep the one that is right"):
        read_cohort(tmp_path)


@pytest.mark.parametrize("write", [write_nnunet, write_decathlon])
def test_decathlon_reader_rejects_differing_duplicates(tmp_path, write):
    write(tmp_path, ["a"])
    before = load_scan(read_cohort(tmp_path).cases[0])
    for file in [*tmp_path.glob("imagesTr/*"), *tmp_path.glob("labelsTr/*")]:
        again = save(file.with_suffix(""), voxels(file))
        (file.parent / f"._{file.name}").write_bytes(b"no scan")
        np.testing.assert_array_equal(load_scan(read_cohort(tmp_path).cases[0]).image, before.image)
        np.testing.assert_array_equal(load_scan(read_cohort(tmp_path).cases[0]).labels, before.labels)
        save(again, np.roll(voxels(file), 1, 0))
        with pytest.raises(DataError) as caught:
            read_cohort(tmp_path)
        assert f"{again}: could be the" in str(caught.value)
        assert f"and so could {file.name}, which differs" in str(caught.value)
        again.unlink()


@pytest.mark.parametrize("write", [write_nnunet, write_decathlon])
def test_decathlon_reader_ignores_suffix_case(tmp_path, write):
    write(tmp_path, ["a"])
    before = load_scan(read_cohort(tmp_path).cases[0])
    for file in [*tmp_path.glob("imagesTr/*"), *tmp_path.glob("labelsTr/*")]:
        file.rename(file.with_name(file.name.replace(".nii.gz", ".NII.Gz")))
    scan = load_scan(read_cohort(tmp_path).cases[0])
    np.testing.assert_array_equal(scan.image, before.image)
    np.testing.assert_array_equal(scan.labels, before.labels)


def test_decathlon_reader_rejects_case_listed_twice_with_other_files(tmp_path):
    write_decathlon(tmp_path, ["a", "b"])
    file = tmp_path / "dataset.json"
    description = json.loads(file.read_text())
    description["training"].append(description["training"][0])
    file.write_text(json.dumps(description))
    assert [case.id for case in read_cohort(tmp_path).cases] == ["a", "b"]
    description["training"][-1] = {"image": "imagesTr/a.nii.gz", "label": "labelsTr/b.nii.gz"}
    file.write_text(json.dumps(description))
    with pytest.raises(DataError, match="training lists a twice, with other files; leave one of the two"):
        read_cohort(tmp_path)


def read_with_description(root, **change):
    file = root / "dataset.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    return read_cohort(root)


@pytest.mark.parametrize("names", [("noNorm", "noNorm"), ("T1", "T1w")])
def test_nnunet_reader_numbers_channels_of_one_name(tmp_path, names):
    cohort = read_with_description(write_nnunet(tmp_path, ["a"]), channel_names=dict(zip("01", names, strict=True)))
    images, _ = brain(0)
    name = names[0].lower()
    assert cohort.modalities == (f"{name}_0", f"{name}_1")
    np.testing.assert_array_equal(load_scan(cohort.cases[0]).image, np.stack([images["t1"], images["t1ce"]]))


def test_nnunet_reader_reads_colour_picture_as_three_channels(tmp_path):
    picture, nuclei = tissue(0)
    save_picture(tmp_path / "imagesTr" / "road_0000.png", picture)
    save_picture(tmp_path / "labelsTr" / "road.png", nuclei.astype(np.uint8))
    named = {"channel_names": {"0": "R", "1": "G", "2": "B"}, "labels": {"background": 0, "road": 1}}
    (tmp_path / "dataset.json").write_text(json.dumps({**named, "file_ending": ".png"}))
    scan = load_scan(read_cohort(tmp_path, "decathlon").cases[0], ("red", "green", "blue"))
    np.testing.assert_array_equal(scan.image[..., 0], np.moveaxis(picture, -1, 0))
    np.testing.assert_array_equal(scan.labels[..., 0], nuclei)


def test_decathlon_reader_rejects_fewer_names_than_channels(tmp_path):
    with pytest.raises(DataError, match=r"dataset\.json: names 2 channels, and a\.nii\.gz has 4; name each of them"):
        read_with_description(write_decathlon(tmp_path, ["a"]), modality={"0": "T1", "1": "T1gd"})


def test_decathlon_reader_ignores_listed_apple_doubles(tmp_path):
    write_decathlon(tmp_path, ["a"])
    pairs = [{"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in ("._a", "a")]
    assert [case.id for case in read_with_description(tmp_path, training=pairs).cases] == ["a"]


@pytest.mark.parametrize("write", [write_nnunet, write_decathlon])
def test_decathlon_reader_ignores_unicode_normalisation(tmp_path, write):
    composed, decomposed = (unicodedata.normalize(form, "Zoé") for form in ("NFC", "NFD"))
    write(tmp_path, [composed])
    mask = tmp_path / "labelsTr" / f"{composed}.nii.gz"
    mask.rename(mask.with_name(f"{decomposed}.nii.gz"))
    (case,) = read_cohort(tmp_path).cases
    assert case.id == composed
    np.testing.assert_array_equal(load_scan(case).labels, brain(0)[1])

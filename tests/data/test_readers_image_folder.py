import json
import os
import shutil
import unicodedata

import numpy as np
import pytest
from PIL import Image

from ganseg_dist.data.readers import read_cohort
from ganseg_dist.data.scan import load_scan
from ganseg_dist.errors import DataError
from tests.data.cohorts import save_picture, slice_of_head, tissue, write_pictures, write_rows

RED, GREEN, BLUE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0)
COLOURED_MASK = np.array([[RED, GREEN], [BLUE, BLACK]], np.uint8).repeat(20, axis=0).repeat(28, axis=1)
"""Four quarters of the size of a `tissue` picture."""


def labels_of(root, case=0):
    return load_scan(read_cohort(root).cases[case]).labels[..., 0]


def read_error(root):
    with pytest.raises(DataError) as caught:
        read_cohort(root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_image_folder_reader_reads_colour_pictures_as_three_modalities(tmp_path):
    cohort = read_cohort(write_pictures(tmp_path, ["b", "a"]))
    assert (cohort.layout, [case.id for case in cohort.cases]) == ("image_folder", ["a", "b"])
    assert cohort.modalities == ("red", "green", "blue")
    assert cohort.regions == ("wt",)
    picture, nuclei = tissue(1)
    scan = load_scan(cohort.cases[0], cohort.modalities)
    np.testing.assert_array_equal(scan.image[..., 0], np.moveaxis(picture, -1, 0))
    np.testing.assert_array_equal(scan.labels[..., 0], nuclei)
    assert scan.grid.spacing_mm is None


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".jpeg", ".tif", ".bmp", ".PNG"])
@pytest.mark.parametrize("mask_suffix", [".png", "_mask.bmp", "_mask.tif"])
def test_image_folder_reader_matches_mask_by_stem(tmp_path, suffix, mask_suffix):
    write_pictures(tmp_path, ["a"], suffix=suffix, mask_suffix=mask_suffix)
    np.testing.assert_array_equal(labels_of(tmp_path), tissue(0)[1])


def test_image_folder_reader_reads_grey_stored_as_colour(tmp_path):
    grey = slice_of_head(0)
    save_picture(tmp_path / "images" / "a.png", grey)
    save_picture(tmp_path / "images" / "b.png", np.stack([slice_of_head(1)] * 3, -1))
    cohort = read_cohort(tmp_path)
    assert cohort.modalities == ("grey",)
    np.testing.assert_array_equal(load_scan(cohort.cases[0]).image[0, ..., 0], grey)
    np.testing.assert_array_equal(load_scan(cohort.cases[1]).image[0, ..., 0], slice_of_head(1))


def test_image_folder_reader_repeats_grey_picture_in_colour_cohort(tmp_path):
    write_pictures(tmp_path, ["a", "b", "c"])
    save_picture(tmp_path / "images" / "b.png", slice_of_head(0, (40, 56)))
    cohort = read_cohort(tmp_path)
    assert cohort.modalities == ("red", "green", "blue")
    for channel in load_scan(cohort.cases[1]).image:
        np.testing.assert_array_equal(channel[..., 0], slice_of_head(0, (40, 56)))


def test_image_folder_reader_takes_luminance_in_grey_cohort(tmp_path):
    for number in range(3):
        save_picture(tmp_path / "images" / f"{number}.png", slice_of_head(number))
    save_picture(tmp_path / "images" / "1.png", np.full((48, 48, 3), (100, 200, 50), np.uint8))
    cohort = read_cohort(tmp_path)
    assert cohort.modalities == ("grey",)
    np.testing.assert_allclose(load_scan(cohort.cases[1]).image, 0.299 * 100 + 0.587 * 200 + 0.114 * 50, rtol=1e-6)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_image_folder_reader_ignores_alpha_channel(tmp_path, name):
    picture, _ = tissue(0)
    save_picture(tmp_path / "images" / name, np.dstack([picture, np.full(picture.shape[:2], 255, np.uint8)]))
    cohort = read_cohort(tmp_path)
    assert cohort.modalities == ("red", "green", "blue")
    np.testing.assert_array_equal(load_scan(cohort.cases[0]).image[2, ..., 0], picture[..., 2])


def test_image_folder_reader_applies_palette(tmp_path):
    picture = Image.fromarray(tissue(0)[0]).quantize(16)
    (tmp_path / "images").mkdir()
    picture.save(tmp_path / "images" / "a.png")
    cohort = read_cohort(tmp_path)
    assert cohort.modalities == ("red", "green", "blue")
    rgb = np.asarray(picture.convert("RGB"))
    np.testing.assert_array_equal(load_scan(cohort.cases[0]).image[1, ..., 0], rgb[..., 1])


@pytest.mark.parametrize("high", [1, 128, 255])
def test_image_folder_mask_is_nonzero_pixels(tmp_path, high):
    write_pictures(tmp_path, ["a"])
    save_picture(tmp_path / "masks" / "a.png", (tissue(0)[1] * high).astype(np.uint8))
    np.testing.assert_array_equal(labels_of(tmp_path), tissue(0)[1])


def test_image_folder_jpeg_mask_is_thresholded_at_half(tmp_path):
    write_pictures(tmp_path, ["a"], mask_suffix=".jpg")
    truth = np.zeros((40, 56), bool)
    truth[10:30, 12:40] = True
    noisy = Image.open(save_picture(tmp_path / "masks" / "a.jpg", np.stack([truth] * 3, -1)))
    assert len(np.unique(np.asarray(noisy))) > 2, "the mask must not be clean"
    assert (labels_of(tmp_path) == truth).mean() > 0.99


def test_image_folder_mask_without_labels_json_takes_any_colour(tmp_path):
    write_pictures(tmp_path, ["a"])
    save_picture(tmp_path / "masks" / "a.png", COLOURED_MASK)
    assert labels_of(tmp_path)[::39, ::55].tolist() == [[1, 1], [1, 0]]


COLOURS = {"vertebra": RED, "disc": GREEN, "canal": BLUE}


@pytest.mark.parametrize("place", ["labels.json", "masks/labels.json"])
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize(
    ("mapping", "expected"),
    [
        (COLOURS, [[1, 1], [1, 0]]),
        (COLOURS | {"structure": "vertebra"}, [[1, 0], [0, 0]]),
        (COLOURS | {"structure": ["vertebra", "canal"]}, [[1, 0], [1, 0]]),
        ({"vertebra": RED, "disc": GREEN, "Background": BLUE}, [[1, 1], [0, 0]]),
    ],
)
def test_labels_json_selects_structure_colours(tmp_path, place, suffix, mapping, expected):
    write_pictures(tmp_path, ["a"], mask_suffix=suffix)
    save_picture(tmp_path / "masks" / f"a{suffix}", COLOURED_MASK)
    (tmp_path / place).write_text(json.dumps(mapping))
    assert labels_of(tmp_path)[::39, ::55].tolist() == expected


def test_labels_json_selects_grey_levels(tmp_path):
    write_pictures(tmp_path, ["a"])
    save_picture(tmp_path / "masks" / "a.png", np.array([[1, 2], [0, 0]], np.uint8).repeat(20, 0).repeat(28, 1))
    (tmp_path / "labels.json").write_text(json.dumps({"vertebra": 1, "disc": 2, "structure": "disc"}))
    assert labels_of(tmp_path)[::39, ::55].tolist() == [[0, 1], [0, 0]]
    assert read_cohort(tmp_path).scheme.labels == {"background": 0, "disc": 1}


def test_labels_json_rejects_unlisted_colour(tmp_path):
    write_pictures(tmp_path, ["a"])
    save_picture(tmp_path / "masks" / "a.png", COLOURED_MASK)
    (tmp_path / "labels.json").write_text(json.dumps({"vertebra": RED, "disc": GREEN}))
    with pytest.raises(DataError, match=r"unknown label values \(0, 0, 255\); known are \(0, 0, 0\), \(255, 0, 0\)"):
        labels_of(tmp_path)


@pytest.mark.parametrize(
    ("mapping", "problem"),
    [
        ("{", "is not readable JSON"),
        ("[]", "does not map names to colours"),
        ('{"vertebra": [255, 0]}', r"vertebra: \[255, 0\] is no colour"),
        ('{"vertebra": 256}', "vertebra: 256 is no colour"),
        ('{"vertebra": [255, 0, 0], "structure": "disc"}', "structure names disc, which has no colour"),
        ("{}", "structure names nothing"),
    ],
)
def test_labels_json_rejects_malformed_mapping(tmp_path, mapping, problem):
    file = write_pictures(tmp_path, ["a"]) / "labels.json"
    file.write_text(mapping)
    with pytest.raises(DataError, match=problem) as caught:
        read_cohort(tmp_path)
    assert str(caught.value).startswith(f"{file}: ")


def test_image_folder_reader_ignores_mask_without_image(tmp_path):
    write_pictures(tmp_path, ["a", "b"])
    (tmp_path / "masks" / "a.png").rename(tmp_path / "masks" / "c.png")
    assert [(case.id, case.mask is None) for case in read_cohort(tmp_path).cases] == [("a", True), ("b", False)]


def test_image_folder_reader_accepts_images_without_masks(tmp_path):
    shutil.rmtree(write_pictures(tmp_path, ["a"]) / "masks")
    cohort = read_cohort(tmp_path)
    assert (cohort.unlabelled, cohort.regions) == (("a",), ())


def test_image_folder_reader_rejects_empty_mask_folder(tmp_path):
    (write_pictures(tmp_path, ["a"]) / "masks" / "a.png").unlink()
    assert read_error(tmp_path).startswith(f"{tmp_path / 'masks'}: holds no pictures; add the masks")


def test_image_folder_reader_rejects_differing_masks_of_one_image(tmp_path):
    save_picture(write_pictures(tmp_path, ["a"]) / "masks" / "a_MASK.tif", tissue(0)[1])
    np.testing.assert_array_equal(labels_of(tmp_path), tissue(0)[1])
    save_picture(tmp_path / "masks" / "a_MASK.tif", tissue(1)[1])
    assert read_error(tmp_path) == (
        f"{tmp_path / 'masks' / 'a.png'}: could be the mask of a, and so could a_MASK.tif, which differs; "
        "keep or rename one"
    )


def test_image_folder_reader_rejects_differing_images_of_one_name(tmp_path):
    save_picture(write_pictures(tmp_path, ["a"]) / "images" / "a.bmp", tissue(0)[0])
    assert len(read_cohort(tmp_path).cases) == 1
    save_picture(tmp_path / "images" / "a.bmp", tissue(1)[0])
    assert read_error(tmp_path).startswith(
        f"{tmp_path / 'images' / 'a.bmp'}: could be the picture a, and so could a.png"
    )


def test_image_folder_reader_ignores_suffix_case_and_partial_files(tmp_path):
    write_pictures(tmp_path, ["a"])
    (tmp_path / "images" / "a.png").rename(tmp_path / "images" / "a.PNG")
    (tmp_path / "masks" / "a.png").rename(tmp_path / "masks" / "a_Mask.Png")
    for name in ("._a.PNG", ".a.png", "a.png.part"):
        (tmp_path / "images" / name).write_bytes(b"no picture")
    os.mkfifo(tmp_path / "images" / "pipe.png")
    assert [case.id for case in read_cohort(tmp_path).cases] == ["a"]
    np.testing.assert_array_equal(labels_of(tmp_path), tissue(0)[1])


@pytest.mark.parametrize("name", ["patients.csv", "labels.json"])
def test_image_folder_reader_rejects_pipe_or_broken_link_as_list(tmp_path, name):
    os.mkfifo(write_pictures(tmp_path, ["a"]) / name)
    assert read_error(tmp_path).startswith(f"{tmp_path / name}: cannot be opened (is not a regular file)")
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to("nowhere")
    assert read_error(tmp_path).startswith(f"{tmp_path / name}: is a link to nowhere, which is not there")


def test_image_folder_reader_rejects_contradicting_labels_json(tmp_path):
    write_pictures(tmp_path, ["a"])
    for place in (tmp_path, tmp_path / "masks"):
        (place / "labels.json").write_text(json.dumps({"vertebra": [255, 0, 0], "disc": [0, 255, 0]}))
    read_cohort(tmp_path)
    (tmp_path / "labels.json").write_text(json.dumps({"vertebra": [0, 255, 0], "disc": [255, 0, 0]}))
    first, other = (place / "labels.json" for place in (tmp_path / "masks", tmp_path))
    assert read_error(tmp_path) == f"{first}: differs from {other}; keep one of them"


def patients_and_sites(root):
    return {case.id: (case.patient, case.site, case.patient_known) for case in read_cohort(root).cases}


def test_image_folder_reader_takes_patient_and_site_from_tcga_names(tmp_path):
    write_pictures(tmp_path, ["TCGA-2Z-A9JG-01Z-00-DX1_1", "TCGA-2Z-A9JG-01Z-00-DX1_2", "other"])
    assert patients_and_sites(tmp_path) == {
        "TCGA-2Z-A9JG-01Z-00-DX1_1": ("TCGA-2Z-A9JG", "2Z", True),
        "TCGA-2Z-A9JG-01Z-00-DX1_2": ("TCGA-2Z-A9JG", "2Z", True),
        "other": ("other", "unknown", False),
    }


def test_patients_csv_overrides_names(tmp_path):
    write_pictures(tmp_path, ["TCGA-2Z-A9JG-01Z", "b", "c"])
    rows = [
        {"File": "TCGA-2Z-A9JG-01Z", "Patient": "ada", "Site": "north"},
        {"File": "b.png", "Patient": "ada", "Site": "north"},
        {"File": "images/c.png", "Patient": "ben", "Site": ""},
    ]
    write_rows(tmp_path / "patients.csv", rows)
    assert patients_and_sites(tmp_path) == {
        "TCGA-2Z-A9JG-01Z": ("ada", "north", True),
        "b": ("ada", "north", True),
        "c": ("ben", "unknown", True),
    }


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("file,who\na,ada\n", ":1: needs the columns file,patient (and site, where known); add them"),
        ("file,patient\na,\n", ":2: file or patient is empty; fill it in or remove the line"),
        ("file,patient\na,ada\na,ben\n", ":3: a is listed twice; list each picture once"),
        ("file,patient\nb,ada\n", ": does not list images/a.png; add a line for it"),
        (
            "file,patient\n../images/a.png,ada\n",
            ":2: path '../images/a.png' leads out of its folder; write the picture's name, or its path below the "
            "folder of the CSV",
        ),
        ("", ":1: needs the columns file,patient (and site, where known); add them"),
    ],
)
def test_patients_csv_rejects_malformed_list(tmp_path, text, problem):
    file = write_pictures(tmp_path, ["a"]) / "patients.csv"
    file.write_text(text)
    assert read_error(tmp_path) == f"{file}{problem}"


def test_image_folder_reader_reads_monusac(shared_data):
    cohort = read_cohort(shared_data / "monusac")
    assert (cohort.layout, cohort.modalities) == ("image_folder", ("red", "green", "blue"))
    assert (len(cohort.cases), len(cohort.patients), cohort.unlabelled) == (31, 9, ())
    scan = load_scan(cohort.cases[0])
    assert scan.image.shape == (3, 142, 115, 1)
    dark = scan.image.mean(axis=0)
    assert dark[scan.labels == 1].mean() < dark[scan.labels == 0].mean() - 20, "nuclei are the dark part"


def test_image_folder_reader_reads_spine(shared_data, tmp_path):
    cohort = read_cohort(shared_data / "spine")
    assert (cohort.layout, cohort.modalities, len(cohort.cases)) == ("image_folder", ("grey",), 36)
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        shutil.copyfile(shared_data / "spine" / folder / "10008_12.png", tmp_path / folder / "10008_12.png")
    assert labels_of(tmp_path).sum() == 14355
    one = {"class_1": RED, "others": GREEN, "a": BLUE, "b": (255, 255, 0), "c": (255, 0, 255), "d": (0, 255, 255)}
    (tmp_path / "labels.json").write_text(json.dumps(one | {"e": 128, "structure": "class_1"}))
    assert labels_of(tmp_path).sum() == 2134


def test_image_folder_reader_ignores_unicode_normalisation(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "Zoé") for form in ("NFC", "NFD"))
    write_pictures(tmp_path, [composed])
    (tmp_path / "masks" / f"{composed}.png").rename(tmp_path / "masks" / f"{decomposed}_mask.png")
    write_rows(tmp_path / "patients.csv", [{"file": f"{decomposed}.png", "patient": decomposed}])
    (case,) = read_cohort(tmp_path).cases
    assert (case.id, case.patient) == (composed, composed)
    np.testing.assert_array_equal(labels_of(tmp_path), tissue(0)[1])

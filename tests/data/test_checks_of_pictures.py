"""Preflight of 2-D pictures: in colour or grey, with masks or classes."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy import ndimage

from ganseg_dist.data.checks.case_checks import check_case
from ganseg_dist.data.checks.cohort_checks import check_cohort, expected_modalities
from ganseg_dist.data.checks.finding import COHORT, CaseReport
from ganseg_dist.data.readers import read_cohort
from ganseg_dist.records import validated
from tests.data.cohorts import save_picture, slice_of_head, tissue, write_classes, write_pictures, write_rows

NAMES = tuple(f"TCGA-2Z-A9J{letter}-01Z" for letter in "ABCD")
CLASSES = {"Training/glioma": 3, "Training/none": 3, "Testing/glioma": 1, "Testing/none": 1}


def findings(root, layout=None):
    cohort = read_cohort(root, layout)
    reports = [check_case(case, expected_modalities=expected_modalities(cohort)) for case in cohort.cases]
    return (*(finding for report in reports for finding in report.findings), *check_cohort(cohort, reports))


def only_finding(root, layout=None):
    found = [finding for finding in findings(root, layout) if finding.check != "unknown-patients"]
    assert len(found) == 1, [finding.line() for finding in found]
    return found[0]


@pytest.fixture
def pictures(tmp_path):
    """Four pictures in colour with masks, of four known patients."""
    return write_pictures(tmp_path / "pictures", NAMES)


@pytest.fixture
def classes(tmp_path):
    """Eight grey pictures of two classes in two parts."""
    return write_classes(tmp_path / "classes", CLASSES)


def test_check_finds_nothing_in_valid_pictures(pictures):
    assert findings(pictures) == ()


def test_check_warns_of_mask_without_image(pictures):
    (pictures / "images" / f"{NAMES[1]}.png").unlink()
    finding = only_finding(pictures)
    assert (finding.case, finding.check, finding.severity) == (COHORT, "unread", "warning")
    mask = pictures / "masks" / f"{NAMES[1]}.png"
    assert finding.problem == f"1 file lies beside the cases' own without being read, such as {mask}"


def test_check_warns_once_of_unknown_patients(classes, tmp_path):
    (finding,) = findings(classes)
    assert (finding.case, finding.check, finding.severity) == (COHORT, "unknown-patients", "warning")
    assert finding.file == str(classes)
    assert "the patients of 8 pictures are unknown" in finding.problem
    assert "patients.csv" in finding.remedy
    rows = [
        {"file": f"{folder}/{n}.png", "patient": f"{folder}{n}"}
        for folder, count in CLASSES.items()
        for n in range(count)
    ]
    write_rows(classes / "patients.csv", rows)
    assert findings(classes) == ()


def test_check_reports_mask_of_other_size(pictures):
    file = save_picture(pictures / "masks" / f"{NAMES[1]}.png", tissue(1)[1][:-1])
    finding = only_finding(pictures)
    assert (finding.case, finding.check, finding.severity, finding.file) == (NAMES[1], "shape", "error", str(file))


@pytest.mark.parametrize("content", [b"", b"no picture", None], ids=["empty", "text", "truncated"])
def test_check_names_unreadable_picture_once(tmp_path, content):
    write_pictures(tmp_path, NAMES, suffix=".jpg")
    file = tmp_path / "images" / f"{NAMES[2]}.jpg"
    file.write_bytes(file.read_bytes()[:-200] if content is None else content)
    finding = only_finding(tmp_path)
    assert (finding.case, finding.check, finding.severity) == (NAMES[2], "unreadable", "error")
    assert finding.file == str(file)


def test_check_names_unreadable_mask(pictures):
    file = pictures / "masks" / f"{NAMES[0]}.png"
    file.write_bytes(file.read_bytes()[:40])
    finding = only_finding(pictures)
    assert (finding.check, finding.file) == ("unreadable", str(file))


def test_check_warns_of_image_without_mask(pictures):
    (pictures / "masks" / f"{NAMES[0]}.png").unlink()
    finding = only_finding(pictures)
    assert (finding.case, finding.check, finding.severity) == (NAMES[0], "missing-mask", "warning")


def test_check_warns_of_empty_picture_mask(pictures):
    save_picture(pictures / "masks" / f"{NAMES[0]}.png", np.zeros((40, 56), bool))
    finding = only_finding(pictures)
    assert (finding.check, finding.severity) == ("empty-mask", "warning")


def test_check_warns_of_blurred_mask_unless_jpeg(pictures):
    levels = np.linspace(0, 255, 40 * 56).reshape(40, 56).astype(np.uint8)
    file = save_picture(pictures / "masks" / f"{NAMES[0]}.png", levels)
    finding = only_finding(pictures)
    assert (finding.check, finding.severity, finding.file) == ("blurred-mask", "warning", str(file))
    assert "256 grey levels" in finding.problem
    file.unlink()
    save_picture(file.with_suffix(".jpg"), levels)
    finding = only_finding(pictures)
    assert (finding.check, finding.severity) == ("unreadable", "error")
    assert "is a JPEG mask of several grey levels, such as " in finding.problem
    save_picture(file.with_suffix(".jpg"), tissue(0)[1])
    assert findings(pictures) == (), "a JPEG is known to be blurred and is cut at half"


def test_check_warns_of_mask_with_soft_edges(pictures):
    file = pictures / "masks" / f"{NAMES[0]}.png"
    pixels = tissue(0)[1].astype(np.float32)
    save_picture(file, (240 * ndimage.uniform_filter(pixels, 3)).round(-1).astype(np.uint8))
    finding = only_finding(pictures)
    assert (finding.check, finding.severity, finding.file) == ("blurred-mask", "warning", str(file))
    assert "soft edges in " in finding.problem
    structures = np.zeros((40, 56), np.uint8)
    for number in range(4):  # of several grey levels
        structures[4:20, 4 + 12 * number : 14 + 12 * number] = 60 * (number + 1)
    save_picture(file, structures)
    assert findings(pictures) == ()


def test_check_reports_unknown_mask_colour(pictures):
    (pictures / "labels.json").write_text(json.dumps({"nucleus": 255}))
    assert findings(pictures) == ()
    save_picture(pictures / "masks" / f"{NAMES[0]}.png", np.full((40, 56, 3), (1, 2, 3), np.uint8))
    finding = only_finding(pictures)
    assert (finding.check, finding.severity) == ("labels", "error")
    assert finding.problem == "unknown label values (1, 2, 3); known are (0, 0, 0), (255, 255, 255)"


@pytest.mark.parametrize("as_colours", [False, True])
def test_check_warns_of_grey_picture_in_colour_cohort(pictures, as_colours):
    grey = slice_of_head(0, (40, 56))
    file = save_picture(pictures / "images" / f"{NAMES[3]}.png", np.stack([grey] * 3, -1) if as_colours else grey)
    finding = only_finding(pictures)
    assert (finding.case, finding.check, finding.severity) == (NAMES[3], "grey-picture", "warning")
    assert finding.file == str(file)


def test_check_warns_of_colour_picture_in_grey_cohort(classes):
    file = save_picture(classes / "Training" / "none" / "1.png", tissue(0)[0])
    finding = only_finding(classes)
    assert (finding.check, finding.severity, finding.file) == ("colour-picture", "warning", str(file))
    assert finding.problem == "is in colour, the cohort grey: its luminance is read"


def test_check_ignores_how_grey_pictures_are_stored(classes):
    file = classes / "Training" / "none" / "1.png"
    Image.open(file).convert("RGB").save(file)
    assert [finding.check for finding in findings(classes)] == ["unknown-patients"]


def test_check_reports_constant_picture(pictures):
    save_picture(pictures / "images" / f"{NAMES[0]}.png", np.full((40, 56, 3), (200, 100, 0), np.uint8))
    finding = only_finding(pictures)
    assert (finding.case, finding.check, finding.severity) == (NAMES[0], "constant", "error")
    assert finding.problem == "is of a single colour, so it shows nothing"


def test_check_accepts_pictures_lacking_one_colour(pictures):
    for number in (0, 1):
        picture = tissue(number)[0]
        picture[..., 1] = 0
        save_picture(pictures / "images" / f"{NAMES[number]}.png", picture)
    assert findings(pictures) == ()


def test_check_reports_more_than_8_bits_per_channel(pictures):
    (pictures / "images" / f"{NAMES[0]}.png").unlink()
    file = pictures / "images" / f"{NAMES[0]}.tif"
    tifffile.imwrite(file, tissue(0)[0].astype(np.uint16) * 257, photometric="rgb")
    found = findings(pictures)
    assert {(finding.case, finding.check, finding.file) for finding in found} == {(NAMES[0], "range", str(file))}


def test_check_skips_skull_and_registration_checks_for_pictures(tmp_path):
    """Heads in noise beside heads in black, and channels that do not lie on each other."""
    rng = np.random.default_rng(0)
    for number in range(4):
        noise = rng.integers(0, 40, (48, 48)) * (number % 2)
        save_picture(
            tmp_path / "grey" / "ab"[number % 2] / f"{number}.png",
            (slice_of_head(number) * 0.8 + noise).astype(np.uint8),
        )
    assert [finding.check for finding in findings(tmp_path / "grey")] == ["unknown-patients"]
    write_pictures(tmp_path / "colour", NAMES)
    shifted = tissue(9)[0]
    shifted[..., 2] = np.roll(shifted[..., 2], 8, axis=0)
    save_picture(tmp_path / "colour" / "images" / f"{NAMES[0]}.png", shifted)
    assert findings(tmp_path / "colour") == ()


def test_check_warns_of_mask_in_background_of_grey_picture(tmp_path):
    corner = np.zeros((48, 48), bool)
    corner[:4, :4] = True
    save_picture(tmp_path / "images" / "a.png", slice_of_head(0))
    save_picture(tmp_path / "masks" / "a.png", corner)
    finding = only_finding(tmp_path)
    assert (finding.check, finding.severity) == ("mask-outside", "warning")
    assert "data.intensities=colour" in finding.remedy


def test_check_reports_single_class(tmp_path):
    finding = only_finding(write_classes(tmp_path, {"Training/glioma": 2, "Testing/glioma": 1}))
    assert (finding.case, finding.check, finding.severity) == (COHORT, "one-class", "error")
    assert finding.problem == "every picture is of one class, glioma"
    folder = write_classes(tmp_path / "other", {"glioma": 2})
    assert only_finding(folder, "class_folder").check == "one-class"


def duplicate(classes, original, copy):
    (classes / copy).unlink(missing_ok=True)
    return shutil.copyfile(classes / original, classes / copy)


@pytest.mark.parametrize("stored", ["L", "RGB"])
def test_check_reports_training_copy_of_test_image(classes, stored):
    file = duplicate(classes, "Testing/none/0.png", "Training/none/2.png")
    Image.open(file).convert(stored).save(file)
    finding = only_finding(classes)
    assert (finding.case, finding.check, finding.severity) == ("Training_none_2", "duplicate-image", "error")
    assert finding.problem == "is the same image as the test case Testing_none_0"
    assert finding.remedy == "leave it out of training, as --exclude-bad does"
    left = read_cohort(classes).without([finding.case])
    assert {case.id for case in left.cases} >= {"Testing_none_0", "Training_none_1"}


def test_check_reports_training_copy_for_any_folder_order(tmp_path):
    write_classes(tmp_path, {"train/a": 2, "train/b": 2, "TEST/a": 1, "TEST/b": 1})
    duplicate(tmp_path, "train/a/1.png", "TEST/a/0.png")
    assert read_cohort(tmp_path).cases[0].part == "test"
    assert only_finding(tmp_path).case == "train_a_1"
    for old, new in (("TEST", "testing"), ("train", "Train")):
        (tmp_path / old).rename(tmp_path / new)
    assert read_cohort(tmp_path).cases[0].part == "train"
    assert only_finding(tmp_path).case == "Train_a_1"


def test_check_reports_duplicate_of_another_class(classes):
    duplicate(classes, "Training/glioma/0.png", "Training/none/0.png")
    finding = only_finding(classes)
    assert (finding.case, finding.check, finding.severity) == ("Training_none_0", "duplicate-image", "error")
    assert finding.problem == "is the same image as Training_glioma_0, which is of class glioma"


def test_check_reports_patient_in_both_parts(classes):
    rows = [
        {"file": f"{folder}/{n}.png", "patient": f"{folder[-4:]}{n}"}
        for folder, count in CLASSES.items()
        for n in range(count)
    ]
    write_rows(classes / "patients.csv", rows)
    found = findings(classes)
    assert [(finding.case, finding.check, finding.severity) for finding in found] == [
        ("Training_glioma_0", "patient-in-both-parts", "error"),
        ("Training_none_0", "patient-in-both-parts", "error"),
    ]


@pytest.mark.parametrize("name", ["monusac", "osteosarcoma", "spine"])
def test_check_finds_nothing_in_real_pictures(shared_data, name):
    cohort = read_cohort(shared_data / name)
    for case in cohort.cases[::6]:
        assert [f.check for f in check_case(case).findings if case.id != "10025_0"] == [], case.id


def test_check_finds_nothing_in_brain4(shared_data):
    cohort = read_cohort(shared_data / "brain4")
    for case in cohort.cases[::25]:
        report = check_case(case)
        assert (report.findings, report.coloured) == ((), False), case.id


def striped_mask(*colours):
    """Stripes of these colours on black."""
    mask = np.zeros((40, 56, 3), np.uint8)
    for place, colour in enumerate(colours):
        mask[4 * place : 4 * place + 3] = colour
    return mask


def test_check_warns_once_of_unnamed_mask_colours(pictures):
    red, green, blue = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    save_picture(pictures / "masks" / f"{NAMES[0]}.png", striped_mask(red, green))
    save_picture(pictures / "masks" / f"{NAMES[1]}.png", striped_mask(blue))
    finding = only_finding(pictures)
    assert (finding.case, finding.check, finding.severity) == (COHORT, "unnamed-colours", "warning")
    assert "hold 4 colours ((0, 0, 255), (0, 255, 0), (255, 0, 0), (255, 255, 255))" in finding.problem
    assert "labels.json" in finding.remedy
    named = {"vertebra": red, "disc": green, "canal": blue, "nucleus": [255, 255, 255]}
    (pictures / "labels.json").write_text(json.dumps(named))
    assert findings(pictures) == ()


def test_check_accepts_unnamed_masks_of_one_colour_or_grey(pictures):
    for colours in (((255, 0, 0),), ((128,) * 3, (255,) * 3)):
        for row, name in enumerate(NAMES):
            save_picture(pictures / "masks" / f"{name}.png", np.roll(striped_mask(*colours), row, axis=0))
        assert findings(pictures) == ()


def test_check_remedy_for_unknown_colour_is_labels_json(pictures):
    (pictures / "labels.json").write_text(json.dumps({"nucleus": 255}))
    save_picture(pictures / "masks" / f"{NAMES[0]}.png", striped_mask((1, 2, 3)))
    assert only_finding(pictures).remedy == "add these colours to labels.json"


def test_case_report_keeps_mask_colours_through_json(pictures):
    save_picture(pictures / "masks" / f"{NAMES[0]}.png", striped_mask((255, 0, 0), (0, 0, 9)))
    report = check_case(read_cohort(pictures).cases[0])
    assert report.mask_colours == ((0, 0, 9), (255, 0, 0))
    assert validated(CaseReport, json.loads(json.dumps(asdict(report))), Path("report.json")) == report


def nuclei_mask(number=0):
    return tissue(number)[1]


def overwrite_mask(pictures, pixels, number=0, suffix=".png"):
    (pictures / "masks" / f"{NAMES[number]}.png").unlink()
    return save_picture(pictures / "masks" / f"{NAMES[number]}{suffix}", pixels)


def test_check_warns_of_inverted_picture_mask(pictures):
    blob = np.zeros((40, 56), bool)
    blob[10:20, 10:25] = True
    file = overwrite_mask(pictures, ~blob)
    finding = only_finding(pictures)
    assert (finding.check, finding.severity, finding.file) == ("inverted-mask", "warning", str(file))
    assert finding.problem == "the mask may be inverted: it covers 93% of the picture and all along its border"
    overwrite_mask(pictures, blob)
    assert findings(pictures) == ()


def test_check_warns_of_mask_covering_whole_picture(pictures):
    overwrite_mask(pictures, np.ones((40, 56), bool))
    finding = only_finding(pictures)
    assert (finding.check, finding.severity) == ("large-mask", "warning")
    assert finding.problem == "the mask covers 100% of the picture"


def test_check_accepts_lesion_of_three_quarters_of_picture(pictures):
    lesion = np.ones((40, 56), bool)
    lesion[:10] = False
    overwrite_mask(pictures, lesion)
    assert findings(pictures) == ()


@pytest.mark.parametrize("colour", ["in colour", "grey"])
def test_check_reports_image_copied_as_mask(pictures, colour):
    if colour == "grey":
        for number, name in enumerate(NAMES):
            head = slice_of_head(number, (40, 56))
            save_picture(pictures / "images" / f"{name}.png", head)
            save_picture(pictures / "masks" / f"{name}.png", head > 150)
    file = shutil.copyfile(pictures / "images" / f"{NAMES[0]}.png", pictures / "masks" / f"{NAMES[0]}.png")
    found = [finding for finding in findings(pictures) if finding.check != "unnamed-colours"]
    assert [(finding.check, finding.severity, finding.file) for finding in found] == [
        ("copied-mask", "error", str(file))
    ]
    assert found[0].problem == "the mask is the image itself"


def test_check_warns_of_mask_shared_by_many_images(pictures):
    for number in (1, 2):
        overwrite_mask(pictures, nuclei_mask(), number)
    assert findings(pictures) == (), "the sequences of a patient may share one"
    overwrite_mask(pictures, nuclei_mask(), 3)
    finding = only_finding(pictures)
    assert (finding.case, finding.check, finding.severity) == (NAMES[0], "shared-mask", "warning")
    assert finding.problem == f"the mask is that of {NAMES[1]} and 2 more cases too, whose images differ"


def test_check_warns_of_nearly_black_jpeg_mask(pictures):
    overwrite_mask(pictures, (nuclei_mask() * 30).astype(np.uint8), suffix=".jpg")
    finding = only_finding(pictures)
    assert (finding.check, finding.severity) == ("empty-mask", "warning")
    assert finding.problem.startswith("the mask is empty: its brightest value is ")
    assert finding.problem.endswith(", and a JPEG below 64 shows nothing but noise")


def test_check_warns_of_black_mask_on_transparent(pictures):
    pixels = np.zeros((40, 56, 4), np.uint8)
    pixels[..., 3] = 255 * nuclei_mask()
    overwrite_mask(pictures, pixels)
    finding = only_finding(pictures)
    assert (finding.check, finding.problem) == (
        "empty-mask",
        "the mask is empty: its opaque pixels are black",
    )


def test_check_accepts_mask_transparent_around_lesion(pictures):
    pixels = np.zeros((40, 56, 4), np.uint8)
    pixels[..., :3], pixels[..., 3] = 255, 255 * nuclei_mask()
    overwrite_mask(pictures, pixels)
    assert findings(pictures) == ()


@pytest.mark.parametrize(("number", "warns"), [(3, True), (6, False)])
def test_check_warns_of_mask_lacking_exif_orientation(pictures, number, warns):
    picture = tissue(0)[0]
    exif = Image.Exif()
    exif[0x0112] = number
    stored = np.rot90(picture, {3: 2, 6: 1}[number])
    Image.fromarray(np.ascontiguousarray(stored)).save(pictures / "images" / f"{NAMES[0]}.png", exif=exif)
    if not warns:
        assert findings(pictures) == (), "by its shape the mask is of the picture as displayed"
        return
    finding = only_finding(pictures)
    assert (finding.check, finding.severity) == ("turned-mask", "warning")
    assert finding.problem == "its image is displayed by EXIF orientation 3, the mask by 1"


def test_check_accepts_float_mask_near_integers_only(pictures):
    mask = pictures / "masks" / f"{NAMES[0]}.png"
    mask.unlink()
    tifffile.imwrite(mask.with_suffix(".tif"), nuclei_mask().astype(np.float32) * 1.0005)
    assert findings(pictures) == ()
    tifffile.imwrite(mask.with_suffix(".tif"), nuclei_mask().astype(np.float32) * 1.25)
    finding = only_finding(pictures)
    assert (finding.severity, finding.problem) == ("error", "the mask has values that are no whole numbers, 1.25")
    assert finding.remedy == "round or recode it"
    tifffile.imwrite(mask.with_suffix(".tif"), np.linspace(0, 1, 40 * 56, dtype=np.float32).reshape(40, 56))
    assert only_finding(pictures).problem.startswith("holds probabilities of 0.00134 to 0.999")


@pytest.mark.parametrize(("first", "expected"), [(1, []), (2, ["slice-numbers"])])
def test_check_warns_of_slice_numbers_that_differ(tmp_path, first, expected):
    lesion = np.zeros((48, 48), bool)
    lesion[20:28, 20:28] = True
    for number in range(3):
        save_picture(tmp_path / "scan" / f"s_{number + 1}.png", slice_of_head(number))
        save_picture(tmp_path / "lesion" / f"s_{number + first}.png", lesion)
    row = {"case": "a", "patient": "a", "t1": "scan/*.png", "mask": "lesion/*.png"}
    found = findings(write_rows(tmp_path / "list.csv", [row]))
    assert [finding.check for finding in found] == expected
    if expected:
        assert found[0].problem.startswith("the mask's slices are numbered 2 to 4, the image's 1 to 3")

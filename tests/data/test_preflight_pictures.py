"""Preflight of 2-D pictures: in colour or grey, with masks or classes."""

import json
import shutil

import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy import ndimage

from ganseg_dist.data.preflight import COHORT, CaseReport, check_case, check_cohort, expected_modalities
from ganseg_dist.data.readers import read_cohort
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


def test_good_pictures_have_no_findings(pictures):
    assert findings(pictures) == ()


def test_a_mask_whose_image_is_gone_is_reported(pictures):
    (pictures / "images" / f"{NAMES[1]}.png").unlink()
    finding = only_finding(pictures)
    assert (finding.case, finding.check, finding.severity) == (COHORT, "unread", "warning")
    mask = pictures / "masks" / f"{NAMES[1]}.png"
    assert finding.problem == f"1 file lies beside the cases' own without being read, such as {mask}"


def test_patients_that_nobody_names_are_one_warning(classes, tmp_path):
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


def test_a_mask_of_another_size(pictures):
    file = save_picture(pictures / "masks" / f"{NAMES[1]}.png", tissue(1)[1][:-1])
    finding = only_finding(pictures)
    assert (finding.case, finding.check, finding.severity, finding.file) == (NAMES[1], "shape", "error", str(file))


@pytest.mark.parametrize("content", [b"", b"no picture", None], ids=["empty", "text", "truncated"])
def test_an_unreadable_picture_is_named_once(tmp_path, content):
    write_pictures(tmp_path, NAMES, suffix=".jpg")
    file = tmp_path / "images" / f"{NAMES[2]}.jpg"
    file.write_bytes(file.read_bytes()[:-200] if content is None else content)
    finding = only_finding(tmp_path)
    assert (finding.case, finding.check, finding.severity) == (NAMES[2], "unreadable", "error")
    assert finding.file == str(file)


def test_an_unreadable_mask(pictures):
    file = pictures / "masks" / f"{NAMES[0]}.png"
    file.write_bytes(file.read_bytes()[:40])
    finding = only_finding(pictures)
    assert (finding.check, finding.file) == ("unreadable", str(file))


def test_an_image_without_a_mask(pictures):
    (pictures / "masks" / f"{NAMES[0]}.png").unlink()
    finding = only_finding(pictures)
    assert (finding.case, finding.check, finding.severity) == (NAMES[0], "missing-mask", "warning")


def test_an_empty_mask(pictures):
    save_picture(pictures / "masks" / f"{NAMES[0]}.png", np.zeros((40, 56), bool))
    finding = only_finding(pictures)
    assert (finding.check, finding.severity) == ("empty-mask", "warning")


def test_a_mask_that_was_once_a_jpeg(pictures):
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


def test_a_mask_with_soft_edges(pictures):
    file = pictures / "masks" / f"{NAMES[0]}.png"
    drawn = tissue(0)[1].astype(np.float32)
    save_picture(file, (240 * ndimage.uniform_filter(drawn, 3)).round(-1).astype(np.uint8))
    finding = only_finding(pictures)
    assert (finding.check, finding.severity, finding.file) == ("blurred-mask", "warning", str(file))
    assert "soft edges in " in finding.problem
    structures = np.zeros((40, 56), np.uint8)
    for number in range(4):  # of several grey levels
        structures[4:20, 4 + 12 * number : 14 + 12 * number] = 60 * (number + 1)
    save_picture(file, structures)
    assert findings(pictures) == ()


def test_an_unknown_colour_of_a_mask(pictures):
    (pictures / "labels.json").write_text(json.dumps({"nucleus": 255}))
    assert findings(pictures) == ()
    save_picture(pictures / "masks" / f"{NAMES[0]}.png", np.full((40, 56, 3), (1, 2, 3), np.uint8))
    finding = only_finding(pictures)
    assert (finding.check, finding.severity) == ("labels", "error")
    assert finding.problem == "unknown label values (1, 2, 3); known are (0, 0, 0), (255, 255, 255)"


@pytest.mark.parametrize("as_colours", [False, True])
def test_a_grey_picture_among_colours(pictures, as_colours):
    grey = slice_of_head(0, (40, 56))
    file = save_picture(pictures / "images" / f"{NAMES[3]}.png", np.stack([grey] * 3, -1) if as_colours else grey)
    finding = only_finding(pictures)
    assert (finding.case, finding.check, finding.severity) == (NAMES[3], "grey-picture", "warning")
    assert finding.file == str(file)


def test_a_picture_in_colour_among_greys(classes):
    file = save_picture(classes / "Training" / "none" / "1.png", tissue(0)[0])
    finding = only_finding(classes)
    assert (finding.check, finding.severity, finding.file) == ("colour-picture", "warning", str(file))
    assert finding.problem == "is in colour, the cohort grey: its luminance is read"


def test_greys_stored_as_greys_and_as_colours_are_all_alike(classes):
    file = classes / "Training" / "none" / "1.png"
    Image.open(file).convert("RGB").save(file)
    assert [finding.check for finding in findings(classes)] == ["unknown-patients"]


def test_a_constant_picture(pictures):
    save_picture(pictures / "images" / f"{NAMES[0]}.png", np.full((40, 56, 3), (200, 100, 0), np.uint8))
    finding = only_finding(pictures)
    assert (finding.case, finding.check, finding.severity) == (NAMES[0], "constant", "error")
    assert finding.problem == "is of a single colour, so it shows nothing"


def test_pictures_that_lack_one_colour_are_fine_and_no_copies_of_each_other(pictures):
    for number in (0, 1):
        picture = tissue(number)[0]
        picture[..., 1] = 0
        save_picture(pictures / "images" / f"{NAMES[number]}.png", picture)
    assert findings(pictures) == ()


def test_more_than_8_bits_a_channel(pictures):
    (pictures / "images" / f"{NAMES[0]}.png").unlink()
    file = pictures / "images" / f"{NAMES[0]}.tif"
    tifffile.imwrite(file, tissue(0)[0].astype(np.uint16) * 257, photometric="rgb")
    found = findings(pictures)
    assert {(finding.case, finding.check, finding.file) for finding in found} == {(NAMES[0], "range", str(file))}


def test_nothing_is_said_of_skulls_and_registration(tmp_path):
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


def test_a_mask_in_the_background_of_a_grey_picture_asks_for_a_look(tmp_path):
    corner = np.zeros((48, 48), bool)
    corner[:4, :4] = True
    save_picture(tmp_path / "images" / "a.png", slice_of_head(0))
    save_picture(tmp_path / "masks" / "a.png", corner)
    finding = only_finding(tmp_path)
    assert (finding.check, finding.severity) == ("mask-outside", "warning")
    assert "data.intensities=colour" in finding.remedy


def test_one_class(tmp_path):
    finding = only_finding(write_classes(tmp_path, {"Training/glioma": 2, "Testing/glioma": 1}))
    assert (finding.case, finding.check, finding.severity) == (COHORT, "one-class", "error")
    assert finding.problem == "every picture is of one class, glioma"
    folder = write_classes(tmp_path / "other", {"glioma": 2})
    assert only_finding(folder, "class_folder").check == "one-class"


def duplicate(classes, original, copy):
    (classes / copy).unlink(missing_ok=True)
    return shutil.copyfile(classes / original, classes / copy)


@pytest.mark.parametrize("stored", ["L", "RGB"])
def test_of_an_image_in_both_parts_the_training_copy_is_left_out(classes, stored):
    file = duplicate(classes, "Testing/none/0.png", "Training/none/2.png")
    Image.open(file).convert(stored).save(file)
    finding = only_finding(classes)
    assert (finding.case, finding.check, finding.severity) == ("Training_none_2", "duplicate-image", "error")
    assert finding.problem == "is the same image as the test case Testing_none_0"
    assert finding.remedy == "leave it out of training, as --exclude-bad does"
    left = read_cohort(classes).without([finding.case])
    assert {case.id for case in left.cases} >= {"Testing_none_0", "Training_none_1"}


def test_it_is_the_training_copy_whichever_part_is_read_first(tmp_path):
    write_classes(tmp_path, {"train/a": 2, "train/b": 2, "TEST/a": 1, "TEST/b": 1})
    duplicate(tmp_path, "train/a/1.png", "TEST/a/0.png")
    assert read_cohort(tmp_path).cases[0].part == "test"
    assert only_finding(tmp_path).case == "train_a_1"
    for old, new in (("TEST", "testing"), ("train", "Train")):
        (tmp_path / old).rename(tmp_path / new)
    assert read_cohort(tmp_path).cases[0].part == "train"
    assert only_finding(tmp_path).case == "Train_a_1"


def test_a_duplicate_of_another_class(classes):
    duplicate(classes, "Training/glioma/0.png", "Training/none/0.png")
    finding = only_finding(classes)
    assert (finding.case, finding.check, finding.severity) == ("Training_none_0", "duplicate-image", "error")
    assert finding.problem == "is the same image as Training_glioma_0, which is of class glioma"


def test_a_patient_in_both_parts(classes):
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


def test_reports_of_pictures_survive_json(classes):
    cohort = read_cohort(classes)
    reports = [check_case(case) for case in cohort.cases]
    again = [CaseReport.from_dict(json.loads(json.dumps(report.to_dict()))) for report in reports]
    assert again == reports
    assert {report.coloured for report in again} == {False}


@pytest.mark.parametrize("name", ["monusac", "osteosarcoma", "spine"])
def test_real_pictures_give_no_false_alarm(shared_data, name):
    cohort = read_cohort(shared_data / name)
    for case in cohort.cases[::6]:
        assert [f.check for f in check_case(case).findings if case.id != "10025_0"] == [], case.id


def test_real_slices_give_no_false_alarm(shared_data):
    cohort = read_cohort(shared_data / "brain4")
    for case in cohort.cases[::25]:
        report = check_case(case)
        assert (report.findings, report.coloured) == ((), False), case.id


def spine_mask(*colours):
    """Stripes of these colours on black."""
    mask = np.zeros((40, 56, 3), np.uint8)
    for place, colour in enumerate(colours):
        mask[4 * place : 4 * place + 3] = colour
    return mask


def test_coloured_masks_that_nothing_names_are_one_warning(pictures):
    red, green, blue = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    save_picture(pictures / "masks" / f"{NAMES[0]}.png", spine_mask(red, green))
    save_picture(pictures / "masks" / f"{NAMES[1]}.png", spine_mask(blue))
    finding = only_finding(pictures)
    assert (finding.case, finding.check, finding.severity) == (COHORT, "unnamed-colours", "warning")
    assert "hold 4 colours ((0, 0, 255), (0, 255, 0), (255, 0, 0), (255, 255, 255))" in finding.problem
    assert "labels.json" in finding.remedy
    named = {"vertebra": red, "disc": green, "canal": blue, "nucleus": [255, 255, 255]}
    (pictures / "labels.json").write_text(json.dumps(named))
    assert findings(pictures) == ()


def test_masks_of_one_colour_or_in_greys_need_no_names(pictures):
    for colours in (((255, 0, 0),), ((128,) * 3, (255,) * 3)):
        for row, name in enumerate(NAMES):
            save_picture(pictures / "masks" / f"{name}.png", np.roll(spine_mask(*colours), row, axis=0))
        assert findings(pictures) == ()


def test_a_colour_that_labels_json_lacks_is_to_be_added_there(pictures):
    (pictures / "labels.json").write_text(json.dumps({"nucleus": 255}))
    save_picture(pictures / "masks" / f"{NAMES[0]}.png", spine_mask((1, 2, 3)))
    assert only_finding(pictures).remedy == "add these colours to labels.json"


def test_mask_colours_survive_the_report_on_disk(pictures):
    save_picture(pictures / "masks" / f"{NAMES[0]}.png", spine_mask((255, 0, 0), (0, 0, 9)))
    report = check_case(read_cohort(pictures).cases[0])
    assert report.mask_colours == ((0, 0, 9), (255, 0, 0))
    assert CaseReport.from_dict(json.loads(json.dumps(report.to_dict()))) == report


def nuclei_mask(number=0):
    return tissue(number)[1]


def overwrite_mask(pictures, pixels, number=0, suffix=".png"):
    (pictures / "masks" / f"{NAMES[number]}.png").unlink()
    return save_picture(pictures / "masks" / f"{NAMES[number]}{suffix}", pixels)


def test_an_inverted_mask(pictures):
    blob = np.zeros((40, 56), bool)
    blob[10:20, 10:25] = True
    file = overwrite_mask(pictures, ~blob)
    finding = only_finding(pictures)
    assert (finding.check, finding.severity, finding.file) == ("inverted-mask", "warning", str(file))
    assert finding.problem == "the mask looks inverted: it covers 93% of the picture and all along its border"
    overwrite_mask(pictures, blob)
    assert findings(pictures) == ()


def test_a_mask_that_covers_the_whole_picture(pictures):
    overwrite_mask(pictures, np.ones((40, 56), bool))
    finding = only_finding(pictures)
    assert (finding.check, finding.severity) == ("large-mask", "warning")
    assert finding.problem == "the mask covers 100% of the picture"


def test_a_lesion_that_fills_three_quarters_of_a_picture(pictures):
    lesion = np.ones((40, 56), bool)
    lesion[:10] = False
    overwrite_mask(pictures, lesion)
    assert findings(pictures) == ()


@pytest.mark.parametrize("colour", ["in colour", "grey"])
def test_an_image_in_place_of_its_mask(pictures, colour):
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


def test_one_mask_for_many_images(pictures):
    for number in (1, 2):
        overwrite_mask(pictures, nuclei_mask(), number)
    assert findings(pictures) == (), "the sequences of a patient may share one"
    overwrite_mask(pictures, nuclei_mask(), 3)
    finding = only_finding(pictures)
    assert (finding.case, finding.check, finding.severity) == (NAMES[0], "shared-mask", "warning")
    assert finding.problem == f"the mask is that of {NAMES[1]} and 2 more cases too, whose images differ"


def test_a_jpeg_mask_that_is_nearly_black(pictures):
    overwrite_mask(pictures, (nuclei_mask() * 30).astype(np.uint8), suffix=".jpg")
    finding = only_finding(pictures)
    assert (finding.check, finding.severity) == ("empty-mask", "warning")
    assert finding.problem.startswith("the mask is empty: its brightest value is ")
    assert finding.problem.endswith(", and a JPEG below 64 shows nothing but noise")


def test_a_mask_drawn_in_black_on_transparent(pictures):
    drawn = np.zeros((40, 56, 4), np.uint8)
    drawn[..., 3] = 255 * nuclei_mask()
    overwrite_mask(pictures, drawn)
    finding = only_finding(pictures)
    assert (finding.check, finding.problem) == (
        "empty-mask",
        "the mask is empty: what is not transparent in it is black",
    )


def test_a_mask_that_is_transparent_around_the_lesion(pictures):
    drawn = np.zeros((40, 56, 4), np.uint8)
    drawn[..., :3], drawn[..., 3] = 255, 255 * nuclei_mask()
    overwrite_mask(pictures, drawn)
    assert findings(pictures) == ()


@pytest.mark.parametrize(("number", "warns"), [(3, True), (6, False)])
def test_an_image_that_exif_turns_and_its_mask_not(pictures, number, warns):
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


def test_a_float_mask(pictures):
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
def test_slices_of_image_and_mask_that_are_numbered_differently(tmp_path, first, expected):
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

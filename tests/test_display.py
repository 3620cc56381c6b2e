"""A mark in the patient's left, stored in several orientations, in every kind of picture."""

import base64
import io
import pickle
import re
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from PIL import Image, ImageColor

from ganseg_dist.config import DataConfig
from ganseg_dist.data.cohort import Case, Source
from ganseg_dist.data.grid import Grid
from ganseg_dist.data.labels import BINARY
from ganseg_dist.data.preprocess import prepare_scan
from ganseg_dist.data.scan import load_scan
from ganseg_dist.data.slices import SliceSet
from ganseg_dist.data.store import content_hash, prepare_case
from ganseg_dist.display import PNG_TEXT, Convention, View, display_convention, shared_caption
from ganseg_dist.errors import ConfigError
from ganseg_dist.evaluation.segmentation import evaluate, save_evaluation
from ganseg_dist.inference.predictor import CasePrediction, PreparedPrediction
from ganseg_dist.planning.request import TrainingRequest
from ganseg_dist.plots.images import MARGIN_INCHES, REGION_COLOURS
from ganseg_dist.report.overlay import write_overlay
from ganseg_dist.report.page import render
from ganseg_dist.report.reading import Records
from ganseg_dist.runs import Run
from ganseg_dist.synthesis.generate import GeneratedSlices
from ganseg_dist.synthesis.memorisation import audit
from ganseg_dist.synthesis.neighbours import neighbour_figure
from ganseg_dist.systems import recipe
from ganseg_dist.tracking.overlay import CAPTION_HEIGHT, TITLE_HEIGHT, examples_png

CONFIG = DataConfig(size=64, spacing_mm=4.0)
CAPTIONS = {
    "radiological": "radiological: the patient's right is on the left",
    "neurological": "neurological: the patient's left is on the left",
}
SHOWN = [("radiological", "R", "L", True), ("neurological", "L", "R", False)]
"""Convention, the letters on the left and on the right, and whether the patient's left is on the right."""

conventions = pytest.mark.parametrize(("name", "on_left", "on_right", "left_is_right"), SHOWN)


@pytest.fixture(params=["RAS", "LAS", "LPS", "SRA"])
def marked(request, tmp_path):
    """A case with a foreground in the middle and a bright lesion in the patient's left, in one storage order."""
    image, mask = np.zeros((40, 48, 6), np.float32), np.zeros((40, 48, 6), np.uint8)
    image[6:34, 4:44], mask[9:14, 20:30] = 100, 1  # the first axis grows towards the patient's right
    image[mask > 0] = 300
    return saved(tmp_path, image, mask, request.param)


def saved(folder, image, mask, axes="RAS"):
    affine = np.diag([4.0, 4.0, 8.0, 1.0])
    for name, voxels in (("flair", image), ("mask", mask)):
        whole = nib.Nifti1Image(voxels, affine)
        turn = nib.orientations.ornt_transform(nib.io_orientation(affine), nib.orientations.axcodes2ornt(axes))
        nib.save(whole.as_reoriented(turn), folder / f"{name}.nii.gz")
    source, truth = (Source((folder / f"{name}.nii.gz",)) for name in ("flair", "mask"))
    return Case("p1", "p1", "here", {"flair": source}, truth)


@pytest.fixture
def picture(tmp_path):
    """A picture without orientation, with a lesion in its left half."""
    plane, mask = np.zeros((48, 48), np.uint8), np.zeros((48, 48), np.uint8)
    plane[4:44, 4:44] = 100
    plane[20:30, 9:14], mask[20:30, 9:14] = 250, 255
    Image.fromarray(plane).save(tmp_path / "p.png")
    Image.fromarray(mask).save(tmp_path / "m.png")
    image, truth = (Source((tmp_path / f"{name}.png",)) for name in "pm")
    return Case("p1", "p1", "here", {"grey": image}, truth)


def slices_of(case, folder):
    return SliceSet.open([prepare_case(folder, case, CONFIG, content_hash(case))], tuple(case.images), ("wt",))


def place(bright):
    """Mean column of these pixels as a share of the width, in the middle rows, where no letter is."""
    height, width = bright.shape
    _, columns = bright[height // 3 : 2 * height // 3].nonzero()
    return (columns.mean() + 0.5) / width


def letters(pixels):
    """What stands in the upper corners of pixels (H, W, 3): an R has ink in its upper right quarter, an L none."""
    height, width = (side * 15 // 100 for side in pixels.shape[:2])
    return "".join(
        _letter(corner[..., :3].min(axis=-1) > 128) for corner in (pixels[:height, :width], pixels[:height, -width:])
    )


def _letter(ink):
    if not ink.any():
        return ""
    rows, columns = (np.flatnonzero(ink.any(axis=axis)) for axis in (1, 0))
    letter = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    assert letter[:, :2].any(axis=1).mean() > 0.8, "both begin with an upright"
    return "R" if letter[: len(letter) // 2, letter.shape[1] // 2 :].any() else "L"


def of_colour(pixels, colour):
    return np.abs(pixels[..., :3].astype(int) - ImageColor.getrgb(colour)).max(axis=-1) < 40


@conventions
def test_overlay_mirrors_patient_as_its_letters_state(marked, tmp_path, name, on_left, on_right, left_is_right):
    scan = load_scan(marked)
    prediction = SimpleNamespace(regions=scan.labels[None] > 0)
    file = write_overlay(tmp_path / "o.png", "p1", scan, prediction, ("wt",), BINARY, Convention(name))
    whole = np.asarray(Image.open(file).convert("RGB"))
    margin, middle = int(MARGIN_INCHES * 120), whole.shape[1] // 2
    plain, outlined = whole[margin:-margin, :middle], whole[margin:-margin, middle:]
    for panel in (plain, outlined):
        assert letters(panel) == on_left + on_right
    assert (place(plain.min(axis=-1) > 230) > 0.6) == left_is_right
    assert (place(of_colour(outlined, REGION_COLOURS["wt"])) > 0.6) == left_is_right


@conventions
def test_training_examples_mirror_patient_as_their_letters_state(
    marked, tmp_path, name, on_left, on_right, left_is_right
):
    slices = slices_of(marked, tmp_path)
    image, regions = slices.read(np.array([2]))
    pictures = {"image": image, "regions": regions, "probability": regions, "anomaly": regions, "synthetic": image}
    sheet = Image.open(io.BytesIO(examples_png(pictures, slices.sides_known[[2]], Convention(name))))
    assert sheet.info[PNG_TEXT] == CAPTIONS[name]
    cells = np.split(np.asarray(sheet)[TITLE_HEIGHT + CAPTION_HEIGHT :], 5, axis=1)
    assert [letters(cell) for cell in cells] == [on_left + on_right] * 4 + [""]
    bright = [cell.min(axis=-1) > 230 for cell in (cells[0], cells[4])]
    bright += [of_colour(cell, REGION_COLOURS["wt"]) for cell in cells[1:3]]
    bright += [cells[3].sum(axis=-1) > 500]
    assert [place(cell) > 0.55 for cell in bright] == [left_is_right] * 5


class TruthArm:
    """An arm that predicts the truth."""

    name, kind, modalities, regions = "p", "model", None, ("wt",)

    def segment(self, scan):
        prepared = prepare_scan(scan, CONFIG, ("wt",))
        truth = prepared.masks.astype(np.float32)
        predicted = PreparedPrediction(truth, truth, prepared.image, None)
        regions = scan.labels[None] > 0
        probability = regions.astype(np.float32)
        return regions, CasePrediction(scan.grid, probability, regions, (0.5,), ((0,),), prepared, predicted)


@pytest.fixture
def page_of(tmp_path):
    """The report of a run that was evaluated on one case."""

    def write(case, convention):
        thresholds = SimpleNamespace(of=lambda region: 0.5, calibrated_on=0)
        config = SimpleNamespace(system=SimpleNamespace(name="gan_osmosis"))
        predictor = SimpleNamespace(thresholds=thresholds, regions=("wt",), system=None, config=config)
        run = Run(tmp_path / "run")
        run.write("config.json", recipe("ganet_seg_debug").model_dump(mode="json"))
        save_evaluation(run.evaluation("all"), evaluate([TruthArm()], [case], "all"), predictor)
        return render(Records.of(run), Convention(convention))

    return write


def tiles(page):
    """Each picture's description, pixels, letters and outlines."""
    for svg in re.findall(r"<svg[^>]*>\s*<image.*?</svg>", page, re.DOTALL):
        uri = re.search(r"data:image/png;base64,([^\"]+)", svg)[1]
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri))).convert("RGB"))
        texts = re.findall(r'<text x="([^"]+)" y="[^"]+"[^>]*>(\w)</text>', svg)
        paths = [np.array(re.findall(r"[-\d.]+", path), float)[::2].mean() for path in re.findall(r' d="([^"]+)"', svg)]
        shown = "".join(letter for _, letter in sorted(texts, key=lambda text: float(text[0])))
        yield re.search(r'aria-label="([^"]+)"', svg)[1].replace("&#39;", "'"), pixels, shown, paths


@conventions
def test_report_tiles_mirror_patient_as_their_letters_state(marked, page_of, name, on_left, on_right, left_is_right):
    page = page_of(marked, name)
    found = list(tiles(page))
    assert len(found) == 5  # alone, outlined; as scanned, filled, anomaly
    for description, pixels, shown, paths in found:
        assert description.endswith(f"; {CAPTIONS[name]}")
        assert shown == on_left + on_right
        assert (place(pixels.sum(axis=-1) > 500) > 0.55) == left_is_right, description
        assert [path > 0.55 * pixels.shape[1] for path in paths] == [left_is_right] * len(paths), description
    assert [len(paths) for *_, paths in found] == [0, 2, 0, 1, 1]
    captions = re.findall(r"<figcaption><span class=\"rank\">.*?</figcaption>", page.replace("&#39;", "'"))
    assert len(captions) == 2
    assert all(CAPTIONS[name] in caption for caption in captions)


@pytest.mark.parametrize("name", list(CAPTIONS))
def test_picture_without_orientation_is_shown_as_stored_without_letters(picture, page_of, tmp_path, name):
    convention = Convention(name)
    slices = slices_of(picture, tmp_path)
    assert slices.sides_known.tolist() == [False]
    image, regions = slices.read(np.array([0]))
    sheet = Image.open(io.BytesIO(examples_png({"image": image, "regions": regions}, slices.sides_known, convention)))
    assert sheet.info[PNG_TEXT] == ""
    cells = np.split(np.asarray(sheet)[TITLE_HEIGHT:], 2, axis=1)
    assert cells[0].shape[0] == 128
    assert place(cells[0].min(axis=-1) > 230) < 0.4
    scan = load_scan(picture)
    file = write_overlay(
        tmp_path / "o.png", "p1", scan, SimpleNamespace(regions=scan.labels[None] > 0), ("wt",), BINARY, convention
    )
    whole = np.asarray(Image.open(file).convert("RGB"))
    margin = int(MARGIN_INCHES * 120)
    assert place(of_colour(whole[margin:-margin, whole.shape[1] // 2 :], REGION_COLOURS["wt"])) < 0.4
    page = page_of(picture, name)
    for description, pixels, shown, paths in tiles(page):
        assert "logical" not in description
        assert shown == ""
        assert all(path < 0.4 * pixels.shape[1] for path in paths)
    assert "the patient" not in page


def test_shared_caption_limits_convention_to_marked_images():
    views = [View.of(Convention.RADIOLOGICAL, sides_known=known) for known in (True, False)]
    assert shared_caption(views) == f"{CAPTIONS['radiological']}, where L and R are marked"
    assert shared_caption(views[:1]) == CAPTIONS["radiological"]
    assert shared_caption(views[1:]) == ""


@conventions
def test_mask_conditioned_figure_mirrors_and_marks_known_sides_only(name, on_left, on_right, left_is_right):
    image = np.full((3, 1, 16, 16), -1, np.float32)
    image[:, :, 4:12, 1:4] = 1
    generated_images = GeneratedSlices(image, (image > 0).astype(np.uint8), image, ("p",) * 3)
    found = audit(image, image)
    for known in (False, True):
        view = View.of(Convention(name), sides_known=known)
        figure = neighbour_figure(generated_images, found, image, ("flair",), ("wt",), view=view)
        rows = np.array(figure.axes, object).reshape(4, -1)
        for row, label in enumerate(("mask", "synthetic", "real", "nearest")):
            pixels = np.asarray(rows[row, 0].get_images()[0].get_array())
            bright = pixels.reshape(16, 16, -1).max(axis=-1) > 200
            assert (place(bright) > 0.5) == (known and left_is_right), label
            letters = "".join(text.get_text() for text in rows[row, 0].texts)
            assert letters == (on_left + on_right if known and label != "synthetic" else ""), label
        assert (CAPTIONS[name].capitalize() in figure.get_supxlabel()) == known
    figure = neighbour_figure(generated_images, found, image, ("flair",), ("wt",), flipped=True)
    assert "Without L and R: training mirrors its images" in figure.get_supxlabel()


def test_display_convention_defaults_to_radiological_and_rejects_unknown(monkeypatch):
    for unset in (None, ""):
        monkeypatch.setenv("GANSEG_DISPLAY", "") if unset == "" else monkeypatch.delenv("GANSEG_DISPLAY", raising=False)
        assert display_convention() is Convention.RADIOLOGICAL
    monkeypatch.setenv("GANSEG_DISPLAY", "neurological")
    assert display_convention() is Convention.NEUROLOGICAL
    monkeypatch.setenv("GANSEG_DISPLAY", "Radiology")
    with pytest.raises(ConfigError, match=r"^GANSEG_DISPLAY: 'Radiology' .* set it to radiological or neurological$"):
        display_convention()


def test_training_request_keeps_display_convention_of_driver(monkeypatch):
    monkeypatch.setenv("GANSEG_DISPLAY", "neurological")
    request = TrainingRequest(recipe("ganet_seg_debug"), Path("data"))
    monkeypatch.setenv("GANSEG_DISPLAY", "nowhere")
    assert pickle.loads(pickle.dumps(request)).convention is Convention.NEUROLOGICAL
    assert "convention" not in request.to_record().model_dump(), "whoever resumes has a display of their own"
    with pytest.raises(ConfigError):
        TrainingRequest(recipe("ganet_seg_debug"), Path("data"))


def test_grid_sides_are_known_with_affine():
    assert Grid((2, 2, 2), np.eye(4)).sides_known
    assert not Grid((2, 2, 2), None).sides_known

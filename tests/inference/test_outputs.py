"""Written masks: their label values are the model's, and the scores are those of these masks."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ganseg_dist.data.labels import BRATS, REGION_LABELS, LabelScheme
from ganseg_dist.data.readers import read_cohort
from ganseg_dist.data.scan import load_scan
from ganseg_dist.evaluation.arms import ModelArm
from ganseg_dist.evaluation.calibration import calibrate
from ganseg_dist.evaluation.segmentation import evaluate, region_masks
from ganseg_dist.inference.model_folder import Thresholds
from ganseg_dist.inference.outputs import Extras, write_case
from ganseg_dist.metrics.segmentation import case_scores, dice_score
from tests.data.cohorts import brain, save, slice_of_head, write_brats, write_nnunet, write_rows
from tests.inference.untrained import predictor

REGIONS = ("wt", "tc", "et")
APART = Thresholds({"wt": 0.9, "tc": 0.5, "et": 0.1})


def random_segmenter(folder, thresholds=APART, **more):
    """A model whose probabilities of each region take all values, independently of each other."""
    model = predictor(folder, ("t1", "t1ce"), REGIONS, thresholds=thresholds, **more)
    head = model.system.networks["segmenter"].head
    head.weight.copy_(10 * torch.randn(head.weight.shape, generator=torch.Generator().manual_seed(0)))
    head.bias.zero_()
    return model


def written_mask(model, case, out):
    """The mask file's values."""
    prediction = model.predict_scan(load_scan(case, model.modalities, with_mask=False))
    mask, *_ = write_case(case, prediction, model, out, Extras())
    return np.asarray(nib.load(mask).dataobj)


def test_evaluate_scores_equal_those_of_written_masks(tmp_path):
    model = random_segmenter(tmp_path / "model")
    cases = read_cohort(write_brats(tmp_path / "data", ["BraTS20_Training_001", "BraTS20_Training_002"])).cases
    rows = evaluate([ModelArm("m", "model", model)], cases, "test").rows["m"]
    for case, row in zip(cases, rows, strict=True):
        values = written_mask(model, case, tmp_path / "out")
        assert set(np.unique(values)) == {0, 1, 2, 4}
        labels = np.vectorize(BRATS.to_our_labels.get)(values)
        masks = np.stack([np.isin(labels, REGION_LABELS[region]) for region in REGIONS])
        scan = load_scan(case, model.modalities)
        alone = model.predict_scan(scan)
        separate = alone.probability >= np.array([0.9, 0.5, 0.1], np.float32)[:, None, None, None]
        assert np.array_equal(masks, alone.regions)
        assert (masks[0] != separate[0]).any(), "the whole tumour's own threshold misses voxels of the others"
        within = {name: score for name, score in row.scores.items() if name.endswith("foreground_specificity")}
        assert len(within) == len(REGIONS)
        known = case_scores(masks, region_masks(scan, REGIONS), REGIONS, scan.grid.spacing_mm)
        assert row.scores == known | within


def test_evaluate_pictures_hold_nested_masks(tmp_path):
    model = random_segmenter(tmp_path / "model")
    cases = read_cohort(write_brats(tmp_path / "data", ["BraTS20_Training_001"])).cases
    wt, tc, et = evaluate([ModelArm("m", "model", model)], cases, "test").pictures[0].predicted
    assert wt.sum() > tc.sum() > et.sum() > 0
    assert not (et > tc).any()
    assert not (tc > wt).any()


def test_calibrate_dice_equals_that_of_written_masks(tmp_path):
    model = random_segmenter(tmp_path / "model", Thresholds())
    cases = read_cohort(write_brats(tmp_path / "data", ["BraTS20_Training_001", "BraTS20_Training_002"])).cases
    thresholds, best = calibrate(model, cases)
    model.thresholds = thresholds
    for region, labels in REGION_LABELS.items():
        dice = []
        for case in cases:
            values = np.vectorize(BRATS.to_our_labels.get)(written_mask(model, case, tmp_path / "out"))
            dice.append(dice_score(np.isin(values, labels), np.isin(load_scan(case).labels, labels)))
        assert best[region].dice == pytest.approx(np.mean(dice), abs=1e-12)


def test_write_case_writes_same_mask_for_each_layout(tmp_path):
    model = random_segmenter(tmp_path / "model")
    images, _ = brain(0)
    files = {m: save(tmp_path / "csv" / f"{m}.nii.gz", images[m]).name for m in ("t1", "t1ce")}
    roots = {
        "brats": write_brats(tmp_path / "brats", ["BraTS20_Training_001"]),
        "brats2023": write_brats(tmp_path / "brats2023", ["BraTS-GLI-00000-000"], names_2023=True),
        "nnunet": write_nnunet(tmp_path / "nnunet", ["case"]),
        "csv": write_rows(tmp_path / "csv" / "list.csv", [{"case": "c", "patient": "p", **files}]),
    }
    masks = {
        name: written_mask(model, read_cohort(root).cases[0], tmp_path / "out" / name) for name, root in roots.items()
    }
    assert set(np.unique(masks["brats"])) == {0, 1, 2, 4}
    for name, mask in masks.items():
        assert np.array_equal(mask, masks["brats"]), name
        assert mask.dtype == np.uint8


def test_write_case_uses_label_values_of_training_set(tmp_path):
    scheme = read_cohort(write_nnunet(tmp_path / "nnunet", ["case"])).scheme
    case = read_cohort(write_brats(tmp_path / "brats", ["BraTS20_Training_001"])).cases[0]
    brats = written_mask(random_segmenter(tmp_path / "a"), case, tmp_path / "out")
    nnunet = written_mask(random_segmenter(tmp_path / "b", scheme=scheme), case, tmp_path / "out")
    assert np.array_equal(np.array([0, 2, 1, 0, 3])[brats], nnunet)


def test_write_case_of_binary_model_writes_its_value_and_255_in_pictures(tmp_path):
    scheme = LabelScheme.of_lesion("stroke", (2,))
    model = predictor(tmp_path / "model", ("flair",), ("wt",), scheme=scheme, thresholds=Thresholds({"wt": 0.0}))
    image = slice_of_head(0)
    Image.fromarray(image).save(tmp_path / "a.png")
    save(tmp_path / "a.nii.gz", image[..., None].astype(np.int16))
    rows = [{"case": name, "patient": name, "flair": f"a.{name}"} for name in ("png", "nii.gz")]
    picture, volume = read_cohort(write_rows(tmp_path / "list.csv", rows)).cases
    values = written_mask(model, replace(volume, id="v"), tmp_path / "out")
    assert set(np.unique(values)) == {2}
    prediction = model.predict_scan(load_scan(picture, ("flair",)))
    file, *_ = write_case(picture, prediction, model, tmp_path / "out", Extras())
    assert set(np.unique(np.asarray(Image.open(file)))) == {255}


def test_write_case_pictures_carry_no_metadata(tmp_path):
    model = predictor(tmp_path / "model", ("flair",), ("wt",))
    text, exif = PngInfo(), Image.Exif()
    text.add_text("Comment", "DOE^JANE")
    exif[0x010E] = "DOE^JANE"
    Image.fromarray(slice_of_head(0)).save(tmp_path / "a.png", pnginfo=text, exif=exif, dpi=(72, 72))
    rows = [{"case": "a", "patient": "a", "flair": "a.png"}]
    case = read_cohort(write_rows(tmp_path / "list.csv", rows)).cases[0]
    prediction = model.predict_scan(load_scan(case, ("flair",)))
    for file in write_case(case, prediction, model, tmp_path / "out", Extras(True, True, True)):
        picture = Image.open(file)
        assert picture.info == {}
        assert not picture.getexif()
        assert b"DOE" not in file.read_bytes()

"""`ganseg predict` on every kind of input."""

import gzip
import json
import os
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tifffile
from PIL import Image

from ganseg_dist.display import PNG_TEXT
from ganseg_dist.evaluation.plausibility import REMEDY
from ganseg_dist.tracking.tracked_run import TrackedRun
from tests.cli.conftest import KAGGLE_SHAPE, assert_error, snapshot, untrained_run, write_colour_case
from tests.cli.test_bad_input import CASE, spoil
from tests.data.cohorts import read_rows, save_picture, slice_of_head, tissue, write_classes, write_pictures, write_rows
from tests.inference.untrained import model_folder


@pytest.fixture
def masks(tmp_path):
    return tmp_path / "masks"


def test_predict_gives_same_mask_for_cohort_case_and_working_folder(ganseg, run, phantom, masks, monkeypatch):
    assert ganseg("predict", "tiny", phantom, "--out", masks / "all").code == 0
    assert ganseg("predict", "tiny", phantom / CASE, "--out", masks / "one").code == 0
    monkeypatch.chdir(phantom / CASE)
    assert ganseg("predict", "tiny", ".", "--out", masks / "here").code == 0
    name = f"{CASE}_mask.nii.gz"
    assert len(list((masks / "all").iterdir())) == 8
    files = [masks / place / name for place in ("all", "one", "here")]
    voxels = [np.asarray(nib.load(file).dataobj) for file in files]
    assert all(np.array_equal(voxels[0], other) for other in voxels[1:])
    assert voxels[0].shape == nib.load(phantom / CASE / f"{CASE}_t1.nii.gz").shape
    assert set(np.unique(voxels[0])) <= {0, 1, 2, 4}
    assert voxels[0].any()


def test_predict_writes_distinct_files_inside_output_folder_for_unsafe_case_names(
    ganseg, run, phantom, tmp_path, masks
):
    names, modalities = ("../../up", "St. Mary/1", "St.-Mary-1"), ("t1", "t1ce", "t2", "flair")
    shutil.copytree(phantom / CASE, tmp_path / "cohort" / "a", copy_function=os.link)
    cells = ",".join(f"a/{CASE}_{modality}.nii.gz" for modality in modalities)
    lines = [f"case,patient,{','.join(modalities)}", *(f"{name},{name},{cells}" for name in names)]
    (tmp_path / "cohort" / "manifest.csv").write_text("\n".join(lines))
    result = ganseg("predict", "tiny", tmp_path / "cohort", "--out", masks / "deep" / "out", "--overlays")
    assert result.code == 0, result.err
    assert "note: 2 cases cannot name a file; ../../up is written as up" in result.err
    written = sorted(path.name for path in (masks / "deep" / "out").iterdir())
    assert {"up_mask.nii.gz", "up_overlay.png", "St.-Mary-1_mask.nii.gz", "St.-Mary-1_overlay.png"} < set(written)
    assert len(written) == 6
    assert [path.name for path in masks.rglob("*") if not path.is_relative_to(masks / "deep" / "out")] == ["deep"]


def test_predict_accepts_run_name_folder_mlflow_id_and_model_folder(ganseg, trained, phantom, masks, monkeypatch):
    monkeypatch.setenv("GANSEG_RUNS", str(trained.folder.parent))
    tracked = TrackedRun(**dict(trained.description().mlflow))
    assert tracked.run_id
    outputs = [
        ganseg("predict", reference, phantom / CASE, "--out", masks).out
        for reference in ("tiny", trained.folder, tracked.run_id, trained.model)
    ]
    assert outputs == [f"{masks / CASE}_mask.nii.gz\n"] * 4


@pytest.mark.parametrize("how", ["truncated", "text", "missing modality"])
def test_predict_reports_broken_case_and_writes_the_others(ganseg, run, bad_cohort, masks, how):
    named = spoil(bad_cohort, how)
    result = ganseg("predict", "tiny", bad_cohort, "--out", masks)
    assert result.code == 1
    assert len(result.errors) == 1
    assert named in result.errors[0]
    assert len(result.out.splitlines()) == 7
    assert {file.name for file in masks.iterdir()} == {Path(line).name for line in result.out.splitlines()}
    assert not (masks / f"{CASE}_mask.nii.gz").exists()


def warnings_of_reading(result):
    """Warnings except those of an implausible lesion, which an untrained model may predict anywhere."""
    return [line for line in result.err.splitlines() if line.startswith("warning") and REMEDY not in line]


def test_predict_warns_like_check_when_sform_contradicts_pixdim(ganseg, run, bad_cohort, masks):
    """As in ACDC: the scale of sform was lost. The mask is the same, and lies on the scan in every viewer."""
    assert ganseg("predict", "tiny", bad_cohort / CASE, "--out", masks / "right").code == 0
    for file in (bad_cohort / CASE).glob("*.nii.gz"):
        image = nib.load(file)
        image.set_sform(np.eye(4), 2)
        content = nib.Nifti1Image(np.asarray(image.dataobj), None, image.header).to_bytes()
        file.unlink()
        file.write_bytes(gzip.compress(content))
    source = bad_cohort / CASE / f"{CASE}_t1.nii.gz"
    warning = f"warning: {CASE}: {source}: sform gives 1 x 1 x 1 mm, pixdim 6 x 6 x 6; pixdim is used"
    assert warning in ganseg("check", bad_cohort).out.splitlines()
    result = ganseg("predict", "tiny", bad_cohort / CASE, "--out", masks / "lost")
    assert warnings_of_reading(result) == [warning]
    right, lost = (nib.load(masks / name / f"{CASE}_mask.nii.gz") for name in ("right", "lost"))
    assert np.array_equal(np.asarray(lost.dataobj), np.asarray(right.dataobj))
    assert np.array_equal(lost.affine, nib.load(source).affine)


def test_predict_ignores_masks_beside_images(ganseg, run, bad_cohort, masks):
    spoil(bad_cohort, "truncated mask")
    assert ganseg("predict", "tiny", bad_cohort / CASE, "--out", masks).code == 0


def test_predict_writes_probability_anomaly_reconstruction_and_overlay(ganseg, run, phantom, masks):
    args = ["--probability", "--anomaly", "--reconstruction", "--overlays"]
    assert ganseg("predict", "tiny", phantom / CASE, "--out", masks, *args).code == 0
    extras = ["mask", *(f"probability_{region}" for region in ("wt", "tc", "et")), "anomaly"]
    extras += [f"healthy_{modality}" for modality in ("t1", "t1ce", "t2", "flair")]
    assert {file.name for file in masks.iterdir()} == {
        f"{CASE}_overlay.png",
        *(f"{CASE}_{name}.nii.gz" for name in extras),
    }
    probability = nib.load(masks / f"{CASE}_probability_wt.nii.gz").get_fdata()
    labels = np.asarray(nib.load(masks / f"{CASE}_mask.nii.gz").dataobj)
    assert np.array_equal(labels > 0, np.any([nib.load(masks / f"{CASE}_{name}.nii.gz").get_fdata() >= 0.5
                                              for name in extras[1:4]], axis=0))  # fmt: skip
    assert 0 <= probability.min() < probability.max() <= 1


def test_display_convention_changes_overlays_but_not_masks(ganseg, run, phantom, tmp_path, monkeypatch):
    for name in ("radiological", "neurological"):
        monkeypatch.setenv("GANSEG_DISPLAY", name)
        assert ganseg("predict", "tiny", phantom / CASE, "--out", tmp_path / name, "--overlays").code == 0
    shown, other = (snapshot(tmp_path / name) for name in ("radiological", "neurological"))
    assert shown.pop(f"{CASE}_overlay.png") != other.pop(f"{CASE}_overlay.png")
    assert shown == other
    monkeypatch.setenv("GANSEG_DISPLAY", "left")
    result = ganseg("predict", "tiny", phantom / CASE, "--out", tmp_path / "none", "--overlays")
    assert_error(result, 2, "GANSEG_DISPLAY: 'left'", "radiological or neurological")
    assert not (tmp_path / "none").exists()


def test_train_logs_example_images_with_display_convention(trained):
    sheets = sorted((trained.folder.parent / "mlartifacts").rglob("examples/*/step-*.png"))
    assert {sheet.parent.name for sheet in sheets} == {"healthy", "segment"}
    for sheet in sheets:
        with Image.open(sheet) as picture:
            assert picture.info[PNG_TEXT] == "radiological: the patient's right is on the left"


def test_predict_accepts_4d_nifti_with_all_channels(ganseg, run, phantom, masks, tmp_path):
    files = [phantom / CASE / f"{CASE}_{modality}.nii.gz" for modality in ("t1", "t1ce", "t2", "flair")]
    stack = np.stack([np.asarray(nib.load(file).dataobj) for file in files], -1)
    nib.save(nib.Nifti1Image(stack, nib.load(files[0]).affine), tmp_path / "scan.2026.nii")
    assert ganseg("predict", "tiny", tmp_path / "scan.2026.nii", "--out", masks).code == 0
    assert ganseg("predict", "tiny", phantom / CASE, "--out", masks).code == 0
    alone, together = (np.asarray(nib.load(masks / f"{name}_mask.nii.gz").dataobj) for name in ("scan.2026", CASE))
    assert alone.shape == stack.shape[:3]
    assert np.array_equal(alone, together)
    nib.save(nib.Nifti1Image(stack[..., :3], np.eye(4)), tmp_path / "three.nii.gz")
    result = ganseg("predict", "tiny", tmp_path / "three.nii.gz", "--out", masks)
    assert_error(result, 1, tmp_path / "three.nii.gz", "has 3 channel(s) and the model needs 4")


def test_predict_reads_nnunet_images_ts_in_order_of_dataset_json(ganseg, run, phantom, masks, tmp_path):
    """nnU-Net's imagesTs, whose channels the dataset.json one level up names in another order than the model's."""
    names = ("flair", "t1", "t1ce", "t2")
    for folder, case in (("imagesTs", "BR_003"), ("imagesTr", "BR_001")):
        (tmp_path / folder).mkdir()
        for number, name in enumerate(names):
            source = phantom / CASE / f"{CASE}_{name}.nii.gz"
            (tmp_path / folder / f"{case}_{number:04d}.nii.gz").symlink_to(source)
    described = {"channel_names": {str(number): name.upper() for number, name in enumerate(names)}}
    (tmp_path / "dataset.json").write_text(json.dumps(described | {"labels": {"background": 0, "tumour": 1}}))
    assert ganseg("predict", "tiny", phantom / CASE, "--out", masks).code == 0
    result = ganseg("predict", "tiny", tmp_path / "imagesTs", "--out", masks)
    assert (result.code, result.out, "note" in result.err) == (0, f"{masks / 'BR_003_mask.nii.gz'}\n", False)
    result = ganseg("predict", "tiny", tmp_path, "--out", masks)
    assert (result.code, result.out) == (0, f"{masks / 'BR_001_mask.nii.gz'}\n")
    assert f"predict them with: ganseg predict tiny {tmp_path / 'imagesTs'} --out DIR" in result.err.replace("\n", " ")
    expected = np.asarray(nib.load(masks / f"{CASE}_mask.nii.gz").dataobj) > 0
    for name in ("BR_001", "BR_003"):
        np.testing.assert_array_equal(np.asarray(nib.load(masks / f"{name}_mask.nii.gz").dataobj) > 0, expected)


def test_predict_writes_png_mask_per_colour_slice(ganseg, kaggle_run, kaggle, masks):
    result = ganseg("predict", "pictures", kaggle, "--out", masks)
    assert result.code == 0, result.err
    assert len(result.out.splitlines()) == 8 * 7
    for line in result.out.splitlines():
        mask = np.asarray(Image.open(line))
        assert mask.shape == KAGGLE_SHAPE
        assert mask.dtype == np.uint8
        assert set(np.unique(mask)) <= {0, 255}
    folder = sorted(kaggle.iterdir())[0].name
    assert {file.name for file in (masks / folder).iterdir()} == {f"{folder}_{z}_mask.png" for z in range(1, 8)}


@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_predict_maps_channels_of_single_picture_as_in_training(ganseg, kaggle_run, tmp_path, masks, suffix):
    """Red is T1, green FLAIR, blue contrast-enhanced T1; the model's own order is another."""
    folder = write_colour_case(tmp_path / "one" / "TCGA_CS_4999_20000101", 3, slices=1)
    slice_ = next(file for file in folder.iterdir() if not file.stem.endswith("_mask"))
    picture = tmp_path / f"picture{suffix}"
    Image.fromarray(tifffile.imread(slice_)).save(picture)
    for source in (folder.parent, picture):
        result = ganseg("predict", "pictures", source, "--out", masks, "--probability", "--reconstruction")
        assert result.code == 0, result.err
    for name in ("mask", "probability_wt", "healthy_flair"):
        as_case, alone = (np.asarray(Image.open(masks / f"{stem}_{name}.png")) for stem in (folder.name, "picture"))
        assert alone.shape == KAGGLE_SHAPE
        assert np.array_equal(alone, as_case)


def test_predict_accepts_folder_of_pictures_with_channels_of_model(ganseg, kaggle_run, tmp_path, masks):
    folder = write_colour_case(tmp_path / "one" / "TCGA_CS_4999_20000101", 3, slices=2)
    (tmp_path / "plain").mkdir()
    slices = sorted(file for file in folder.iterdir() if not file.stem.endswith("_mask"))
    for file, name in zip(slices, ("a", "b"), strict=True):
        Image.fromarray(tifffile.imread(file)).save(tmp_path / "plain" / f"{name}.png")
    whole = ganseg("predict", "pictures", tmp_path / "plain", "--out", masks / "whole")
    assert whole.code == 0, whole.err
    assert ganseg("predict", "pictures", tmp_path / "plain" / "b.png", "--out", masks / "one").code == 0
    assert {file.name for file in (masks / "whole").iterdir()} == {"a_mask.png", "b_mask.png"}
    assert (masks / "whole" / "b_mask.png").read_bytes() == (masks / "one" / "b_mask.png").read_bytes()


def test_predict_rejects_pictures_of_other_format(ganseg, kaggle_run, tmp_path, masks):
    plane = np.full(KAGGLE_SHAPE, 7, np.uint8)
    Image.fromarray(plane).save(tmp_path / "grey.png")
    Image.fromarray(plane).convert("P").save(tmp_path / "palette.png")
    tifffile.imwrite(tmp_path / "pages.tif", np.stack([plane] * 3), photometric="minisblack")
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "notes.txt").write_text("no picture")
    for name, message in {
        "grey.png": "has 1 channel(s) and the model needs 3 (t1, flair, t1ce)",
        "palette.png": "has 1 channel(s) and the model needs 3",
        "pages.tif": "has 3 pages",
        "text.png": "is not a readable picture",
        "notes.txt": "is neither NIfTI nor a picture",
    }.items():
        result = ganseg("predict", "pictures", tmp_path / name, "--out", masks)
        assert_error(result, 1, tmp_path / name, message)
    assert not masks.exists()


def test_predict_names_masks_by_case_when_pictures_share_a_name(ganseg, kaggle_run, tmp_path, masks):
    rows = []
    for number, patient in enumerate(("anna", "ben")):
        file = tmp_path / patient / "slice.png"
        file.parent.mkdir()
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (*KAGGLE_SHAPE, 3), np.uint8)).save(file)
        rows.append({"case": patient, "patient": patient, **{m: f"{patient}/slice.png#{k}" for k, m in
                     enumerate(("t1", "flair", "t1ce"))}})  # fmt: skip
    write_rows(tmp_path / "list.csv", rows)
    result = ganseg("predict", "pictures", tmp_path / "list.csv", "--out", masks)
    assert result.code == 0, result.err
    assert {file.name for file in masks.iterdir()} == {"anna_mask.png", "ben_mask.png"}


def test_predict_writes_mask_inside_output_folder_for_case_with_parent_path(
    ganseg, kaggle_run, kaggle, tmp_path, masks
):
    os.link(sorted(kaggle.glob("*/*_1.tif"))[0], tmp_path / "slice.tif")
    images = {m: f"slice.tif#{k}" for k, m in enumerate(("t1", "flair", "t1ce"))}
    write_rows(tmp_path / "list.csv", [{"case": "../out", "patient": "p", **images}])
    assert ganseg("predict", "pictures", tmp_path / "list.csv", "--out", masks).code == 0
    assert [file.name for file in masks.iterdir()] == ["out_mask.png"]
    assert not list(tmp_path.glob("out*"))


def test_predict_rejects_input_folder_as_output(ganseg, run, bad_cohort, kaggle_run, kaggle):
    before = snapshot(bad_cohort)
    result = ganseg("predict", "tiny", bad_cohort / CASE, "--out", bad_cohort / CASE)
    assert_error(result, 1, CASE, "choose another --out")
    assert snapshot(bad_cohort) == before
    one = sorted(kaggle.iterdir())[0]
    assert_error(ganseg("predict", "pictures", one / f"{one.name}_1.tif", "--out", one), 1, "choose another --out")


def test_predict_rejects_cohort_without_modalities_of_model(ganseg, run, kaggle, masks):
    result = ganseg("predict", "tiny", kaggle, "--out", masks)
    assert_error(result, 1, kaggle, "no case has all of t1, t1ce, t2, flair")


@pytest.mark.parametrize("option", ["--anomaly", "--reconstruction"])
def test_predict_rejects_anomaly_and_reconstruction_without_healthy_gan(
    ganseg, kaggle, phantom, tmp_path, masks, option
):
    plain = model_folder(tmp_path / "plain", ("t1",), ("wt",), changes={"system.gan": False})
    models = {
        plain: "GANet-Seg without its GAN",
        untrained_run("gan_osmosis_debug", kaggle, tmp_path, "osmosis").model: "GAN-OSMOSIS",
        untrained_run("dl_gan_cnn_debug", kaggle, tmp_path, "classifier").model: "DL-GAN-CNN",
    }
    for model, title in models.items():
        result = ganseg("predict", model, phantom, "--out", masks, option)
        assert_error(result, 2, option, f"{model} is a model of {title}, which makes neither; give a run whose")


def test_predict_rejects_probability_and_overlays_for_classifier(ganseg, kaggle, tmp_path, masks):
    untrained_run("dl_gan_cnn_debug", kaggle, tmp_path)
    for option in ("--probability", "--overlays"):
        assert_error(ganseg("predict", "pictures", kaggle, "--out", masks, option), 2, option, "is a classifier")


def test_predict_keeps_earlier_masks_when_disk_is_full(ganseg, run, phantom, masks, small_disk):
    assert ganseg("predict", "tiny", phantom / CASE, "--out", masks).code == 0
    before = snapshot(masks)
    small_disk(100)
    result = ganseg("predict", "tiny", phantom / CASE, "--out", masks)
    small_disk(-1)
    assert_error(result, 1, masks / f"{CASE}_mask.nii.gz", "File too large", "free space")
    assert snapshot(masks) == before


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_predict_rejects_file_as_output_folder(ganseg, run, phantom, tmp_path, place):
    (tmp_path / "file").write_text("precious")
    result = ganseg("predict", "tiny", phantom / CASE, "--out", tmp_path / place)
    assert_error(result, 1, tmp_path / place, "cannot be written")
    assert (tmp_path / "file").read_text() == "precious"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_predict_rejects_output_folder_without_permission(ganseg, run, phantom, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    result = ganseg("predict", "tiny", phantom / CASE, "--out", tmp_path / "locked")
    assert_error(result, 1, tmp_path / "locked", "Permission denied")


@pytest.mark.parametrize("name", ["networks.safetensors", "model.json", "config.json", "thresholds.json"])
@pytest.mark.parametrize("damage", ["removed", "emptied", "edited"])
def test_predict_rejects_damaged_model(ganseg, run, phantom, masks, name, damage):
    file = run.model / name
    if damage == "removed":
        file.unlink()
    else:
        edited = file.read_bytes().replace(b'"', b"'") if file.suffix == ".json" else file.read_bytes()[:-1] + b"?"
        file.write_bytes(b"" if damage == "emptied" else edited)
    result = ganseg("predict", "tiny", phantom / CASE, "--out", masks)
    assert_error(result, 1, run.model if (name, damage) == ("model.json", "removed") else file)
    assert not masks.exists()


@pytest.fixture
def picture_model(tmp_path):
    """A factory of untrained models of colour or grey pictures."""

    def make(kind):
        modalities = ("red", "green", "blue") if kind == "colour" else ("grey",)
        return model_folder(tmp_path / "models" / kind, modalities, ("wt",))

    return make


@pytest.fixture
def plain(tmp_path):
    """A folder of three pictures of a kind, in no layout."""

    def make(kind):
        for number in range(3):
            pixels = tissue(number)[0] if kind == "colour" else slice_of_head(number)
            save_picture(tmp_path / kind / f"p{number}.png", pixels)
        return tmp_path / kind

    return make


@pytest.mark.parametrize("kind", ["colour", "grey"])
def test_predict_writes_one_mask_per_picture(ganseg, picture_model, plain, masks, kind):
    model, folder = picture_model(kind), plain(kind)
    whole = ganseg("predict", model, folder, "--out", masks / "whole")
    assert whole.code == 0, whole.err
    assert not warnings_of_reading(whole)
    assert {file.name for file in (masks / "whole").iterdir()} == {f"p{number}_mask.png" for number in range(3)}
    assert ganseg("predict", model, folder / "p1.png", "--out", masks / "one").code == 0
    assert (masks / "one" / "p1_mask.png").read_bytes() == (masks / "whole" / "p1_mask.png").read_bytes()


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_predict_applies_exif_orientation(ganseg, picture_model, tmp_path, suffix):
    model, shown = picture_model("grey"), slice_of_head(0, (40, 56))
    upright = save_picture(tmp_path / "upright" / "a.png", shown)
    exif, turned = Image.Exif(), tmp_path / "turned" / f"a{suffix}"
    exif[0x0112] = 6
    turned.parent.mkdir()
    stored = Image.fromarray(np.ascontiguousarray(np.rot90(shown)))
    stored.save(turned, **({"exif": exif} if suffix == ".png" else {"tiffinfo": {0x0112: 6}}))
    for name, source in (("of_upright", upright), ("of_turned", turned)):
        result = ganseg("predict", model, source, "--out", tmp_path / name, "--probability")
        assert result.code == 0, result.err
    files = ("a_mask.png", "a_probability_wt.png")
    first, second = ([(tmp_path / out / file).read_bytes() for file in files] for out in ("of_upright", "of_turned"))
    assert first == second
    assert Image.open(tmp_path / "of_turned" / "a_mask.png").size == (56, 40)


def test_predict_reads_transparent_pixels_as_black(ganseg, picture_model, tmp_path):
    model, shown = picture_model("grey"), slice_of_head(0)
    save_picture(tmp_path / "on_black" / "a.png", shown)
    layer = np.dstack([np.where(shown > 0, shown, 255), np.where(shown > 0, 255, 0)]).astype(np.uint8)
    save_picture(tmp_path / "transparent" / "a.png", layer)
    for name in ("on_black", "transparent"):
        assert ganseg("predict", model, tmp_path / name, "--out", tmp_path / f"of_{name}", "--probability").code == 0
    first, second = (tmp_path / f"of_{name}" / "a_probability_wt.png" for name in ("on_black", "transparent"))
    assert first.read_bytes() == second.read_bytes()


def test_predict_skips_masks_and_reports_broken_picture_in_folder(ganseg, picture_model, plain, masks):
    folder = plain("grey")
    save_picture(folder / "p0_mask.png", slice_of_head(0) > 150)
    (folder / "p2.png").write_text("no picture")
    result = ganseg("predict", picture_model("grey"), folder, "--out", masks)
    assert (result.code, len(result.errors)) == (1, 1)
    assert str(folder / "p2.png") in result.errors[0]
    assert {file.name for file in masks.iterdir()} == {"p0_mask.png", "p1_mask.png"}
    save_picture(folder / "p0.jpg", slice_of_head(9))
    messages = (folder / "p0.jpg", "could be the picture p0", "p0.png, which differs; keep or rename one")
    assert_error(ganseg("predict", picture_model("grey"), folder, "--out", masks), 1, *messages)


def test_predict_classifies_single_class_folder(ganseg, kaggle, tmp_path, masks):
    root = write_classes(tmp_path / "made", {"glioma": 6, "none": 6})
    untrained_run("gan_detector_debug", root, tmp_path, "detector")
    result = ganseg("predict", "detector", root / "glioma", "--out", masks)
    assert result.code == 0, result.err
    rows = read_rows(masks / "classes.csv")
    assert [row["case"] for row in rows] == [str(number) for number in range(6)]


@pytest.mark.parametrize(
    ("learnt", "shown", "message"),
    [
        ("colour", "grey", "grey, and the model was trained on colour: the grey level is read as red, green and blue"),
        ("grey", "colour", "in colour, and the model was trained on grey: the luminance is read"),
    ],
)
def test_predict_warns_once_when_colour_and_grey_differ_from_training(
    ganseg, picture_model, plain, tmp_path, masks, learnt, shown, message
):
    model, folder = picture_model(learnt), plain(shown)
    as_cohort = tmp_path / "cohort" / "images"
    as_cohort.parent.mkdir()
    as_cohort.symlink_to(folder)
    for source, many in (
        (folder / "p0.png", f"{folder / 'p0.png'} is"),
        (folder, f"3 pictures, such as {folder / 'p0.png'}, are"),
        (tmp_path / "cohort", f"3 pictures, such as {as_cohort / 'p0.png'}, are"),
    ):
        result = ganseg("predict", model, source, "--out", masks)
        assert result.code == 0, result.err
        assert warnings_of_reading(result) == [f"warning: {many} {message}"]


def test_predict_rejects_picture_folder_for_scan_model(ganseg, run, plain, masks):
    assert_error(ganseg("predict", "tiny", plain("grey"), "--out", masks), 1, "no known layout recognised")


def test_predict_does_not_overwrite_masks_of_input(ganseg, picture_model, tmp_path):
    root = write_pictures(tmp_path / "pictures", ["a", "b"], mask_suffix="_mask.png")
    before = snapshot(root)
    result = ganseg("predict", picture_model("colour"), root, "--out", root / "masks")
    assert result.code == 1
    assert all(f"{root / 'masks'} holds its own mask; choose another --out" in line for line in result.errors)
    assert snapshot(root) == before


def test_predict_does_not_overwrite_foreign_classes_csv(ganseg, kaggle, tmp_path, masks):
    untrained_run("dl_gan_cnn_debug", kaggle, tmp_path)
    one = sorted(kaggle.iterdir())[0]
    masks.mkdir()
    (masks / "classes.csv").write_text("name,class\nanna,3b\n")
    result = ganseg("predict", "pictures", one, "--out", masks)
    assert_error(result, 1, f"{masks / 'classes.csv'}: exists and is no earlier prediction")
    assert (masks / "classes.csv").read_text() == "name,class\nanna,3b\n"
    (masks / "classes.csv").unlink()
    for _ in range(2):
        assert ganseg("predict", "pictures", one, "--out", masks).code == 0

import json

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from ganseg_dist.data.foreground import foreground_mask
from ganseg_dist.data.labels import BINARY, BRATS, LabelScheme
from ganseg_dist.data.readers import read_cohort
from ganseg_dist.data.scan import load_scan
from ganseg_dist.errors import DataError
from ganseg_dist.synthesis.folder import SynthesisEvidence, check_synthetic_folder, write_classes, write_pairs
from ganseg_dist.synthesis.generate import Generated, GeneratedSlices
from ganseg_dist.synthesis.memorisation import audit
from ganseg_dist.synthesis.results import FromClassesQuality, Judgement
from tests.data.cohorts import read_rows

NNUNET = LabelScheme(
    {"background": 0, "edema": 1, "NCR": 2, "ET": 3},
    {"wt": ("edema", "NCR", "ET"), "tc": ("NCR", "ET"), "et": ("ET",)},
)
QUALITY = FromClassesQuality(median_percentile=50.0, flipped=False, classes={}, judge=Judgement(left_out="none given"))


def write_synthesis(folder, channels, classes, modalities):
    rng = np.random.default_rng(0)
    image = rng.uniform(-1, 1, (len(classes), channels, 16, 16)).astype(np.float32)
    training = rng.uniform(-1, 1, (9, channels, 16, 16)).astype(np.float32)
    evidence = SynthesisEvidence(audit(image, training), QUALITY, Figure(), {"run": "r"})
    write_classes(folder, Generated(image, classes), modalities, evidence)
    return image


@pytest.mark.parametrize(
    ("modalities", "file"),
    [
        (("grey",), "glioma/synthetic_00001.png"),
        (("red", "green", "blue"), "glioma/synthetic_00001.png"),
        (("t1", "flair"), "glioma/synthetic_00001_flair.png"),
    ],
)
def test_write_classes_stores_images_by_class_and_modality(tmp_path, modalities, file):
    image = write_synthesis(tmp_path / "out", len(modalities), ("glioma", "none"), modalities)
    pixels = np.asarray(Image.open(tmp_path / "out" / file), float) / 127.5 - 1
    stored = pixels if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
    assert stored == pytest.approx(image[0] if pixels.ndim == 3 else image[0, -1], abs=0.01)
    cohort = read_cohort(tmp_path / "out")
    assert set(cohort.modalities) == set(modalities)
    assert [(case.id, case.class_name) for case in cohort.cases] == [
        ("synthetic_00001", "glioma"),
        ("synthetic_00002", "none"),
    ]
    if "t1" not in modalities:
        assert read_cohort(tmp_path / "out", "class_folder").classes == ("glioma", "none")
    assert json.loads((tmp_path / "out" / "SYNTHETIC.json").read_text()) == {"synthetic": True, "n": 2, "run": "r"}


def test_write_classes_keeps_unsafe_class_names_inside_folder(tmp_path):
    classes = ("../up", "a/b", "..", "grade II, IDH*")
    write_synthesis(tmp_path / "deep" / "out", 1, classes, ("grey",))
    assert {path.name for path in (tmp_path / "deep").iterdir()} == {"out"}
    cohort = read_cohort(tmp_path / "deep" / "out")
    assert tuple(case.class_name for case in cohort.cases) == classes
    assert all(source.files[0].is_file() for case in cohort.cases for source in case.images.values())


def test_write_classes_separates_class_names_equal_on_disk(tmp_path):
    classes = ("grade II?", "grade II!", "Grade-II", "manifest.csv", "t1/post")
    write_synthesis(tmp_path / "out", 2, classes, ("a/b", "a b"))
    cohort = read_cohort(tmp_path / "out")
    assert tuple(case.class_name for case in cohort.cases) == classes
    assert set(cohort.modalities) == {"a/b", "a b"}
    files = [source.files[0] for case in cohort.cases for source in case.images.values()]
    assert len({str(file).lower() for file in files}) == 10
    assert len({file.parent.name.lower() for file in files}) == 5
    assert all(file.is_file() for file in files)


@pytest.mark.parametrize("left", ["thesis.txt", "audit.json", "manifest.csv", "images/p1.png"])
def test_write_classes_rejects_folder_of_other_files(tmp_path, left):
    precious = tmp_path / "out" / left
    precious.parent.mkdir(parents=True)
    precious.write_text("precious")
    with pytest.raises(DataError, match=f"{tmp_path}/out: exists and is no earlier synthesis; give a new folder"):
        write_synthesis(tmp_path / "out", 1, ("glioma",) * 4, ("grey",))
    assert precious.read_text() == "precious"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_write_classes_replaces_earlier_synthesis_without_other_files(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    write_synthesis(out, 1, ("glioma",) * 5, ("grey",))
    write_synthesis(out, 1, ("none",) * 4, ("grey",))
    assert {path.name for path in out.iterdir() if path.is_dir()} == {"none"}
    (out / "none" / "thesis.txt").write_text("precious")
    with pytest.raises(DataError, match=r"out: holds none/thesis\.txt, which no synthesis wrote"):
        write_synthesis(out, 1, ("glioma",) * 5, ("grey",))
    assert (out / "none" / "thesis.txt").read_text() == "precious"


def test_check_synthetic_folder_rejects_file(tmp_path):
    (tmp_path / "out").write_text("precious")
    with pytest.raises(DataError, match="out: is a file"):
        check_synthetic_folder(tmp_path / "out")


@pytest.mark.parametrize("on_background", [True, False])
def test_write_pairs_margin_lets_foreground_mask_find_head(tmp_path, on_background):
    """Turned and scaled, heads reach beyond the frame: its border is tissue then, and a corner the only background."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:32, :32]
    foreground = np.hypot(rows - 20, columns - 12) < 22
    image = np.where(foreground, rng.uniform(0.2, 0.3, (6, 1, 32, 32)), -1).astype(np.float32)
    mask = np.broadcast_to(np.hypot(rows - 8, columns - 9) < 4, image.shape).astype(np.uint8)
    evidence = SynthesisEvidence(audit(image, image + 1), QUALITY, Figure(), {})
    generated_images = GeneratedSlices(image, mask, image, tuple("aabbcc"))
    write_pairs(tmp_path / "out", generated_images, ("flair",), ("wt",), BINARY, evidence, on_background=on_background)
    scan = load_scan(read_cohort(tmp_path / "out").cases[0])
    margin = 4 if on_background else 0
    assert scan.image.shape == (1, 32 + 2 * margin, 32 + 2 * margin, 1)
    inside = np.pad(foreground, margin)[..., None]
    assert np.array_equal(scan.labels, np.pad(mask[0, 0], margin)[..., None])
    found = foreground_mask(scan.image)
    if on_background:
        assert (found & inside).sum() > 0.95 * inside.sum()
        assert not (found & ~inside).any()
    else:
        assert (found & inside).sum() < 0.1 * inside.sum(), "the reason for the margin"


@pytest.mark.parametrize(
    ("scheme", "named", "stored"),
    [
        (BRATS, "brats", {0, 1, 2, 4}),
        (NNUNET, "label_scheme.json", {0, 1, 2, 3}),
        (LabelScheme.of_lesion("stroke", (2,)), "label_scheme.json", {0, 255}),
        (BINARY, "binary", {0, 255}),
    ],
)
def test_write_pairs_masks_have_scheme_values_and_read_back(tmp_path, scheme, named, stored):
    image = np.full((6, 1, 32, 32), 0.2, np.float32)
    columns = np.arange(32)[None].repeat(32, axis=0)
    depth = np.select([columns < 8, columns < 16, columns < 24], [0, 1, 2], 3)
    regions = tuple(scheme.regions)
    mask = np.broadcast_to(np.stack([depth > row for row in range(len(regions))]), (6, len(regions), 32, 32))
    generated_images = GeneratedSlices(image, mask.astype(np.uint8), image, tuple("aabbcc"))
    evidence = SynthesisEvidence(audit(image, image + 1), QUALITY, Figure(), {})
    write_pairs(tmp_path / "out", generated_images, ("flair",), regions, scheme, evidence, on_background=False)
    assert set(np.unique(np.asarray(Image.open(tmp_path / "out/masks/synthetic_00001.png")))) == stored
    case = read_cohort(tmp_path / "out").cases[0]
    assert read_rows(tmp_path / "out" / "manifest.csv")[0]["labels"] == named
    assert set(case.scheme.labels) == set(scheme.labels)
    expected = np.array([0, 2, 1, 3] if len(regions) == 3 else [0, 1, 1, 1])[depth]
    assert np.array_equal(load_scan(case).labels[..., 0], expected)

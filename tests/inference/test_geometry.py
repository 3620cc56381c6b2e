"""However a header stores a volume's geometry, its prepared slices are the same bits and its mask lies in one place."""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.transform import Rotation

from ganseg_dist.config import DataConfig
from ganseg_dist.data.cohort import Case, Source
from ganseg_dist.data.grid import Grid, reorient
from ganseg_dist.data.labels import BINARY
from ganseg_dist.data.nifti import load_nifti
from ganseg_dist.data.preprocess import picture_spacing
from ganseg_dist.data.scan import Scan, load_scan
from ganseg_dist.evaluation.arms import ModelArm
from ganseg_dist.evaluation.segmentation import evaluate
from ganseg_dist.inference.model_folder import Model, Thresholds
from ganseg_dist.inference.outputs import Extras, write_case
from ganseg_dist.inference.predictor import Predictor
from ganseg_dist.systems import recipe
from ganseg_dist.systems.base import Prediction

SHAPE = (22, 25, 3)
MODALITIES = ("t1", "flair")
STEEPEST_DEGREES = 40.0
"""At 45 two axes are equally close."""
UNITS = {"mm": 1.0, "unknown": 1.0, "meter": 1e-3, "micron": 1e3}


@dataclass(frozen=True)
class Stored:
    """How one file stores its volume."""

    order: tuple[int, int, int]
    flips: tuple[int, int, int]
    forms: str
    version: type[nib.Nifti1Image]
    suffix: str
    dtype: str
    unit: str
    float32_affine: bool


def head() -> dict[str, np.ndarray]:
    """Two modalities and a mask, whole numbers of 0 to 255, on RAS axes, without any symmetry."""
    rng = np.random.default_rng(3)
    x, y, z = np.meshgrid(*(np.arange(side) for side in SHAPE), indexing="ij")
    foreground = ((x - 11.3) / 8.2) ** 2 + ((y - 11.8) / 10.4) ** 2 + (z - 1) ** 2 / 9 <= 1
    lesion = foreground & ((x - 8) ** 2 + (y - 15) ** 2 + 4 * (z - 1) ** 2 <= 11)
    tissue = ndimage.gaussian_filter(rng.normal(size=SHAPE), 1.0)
    t1 = np.where(foreground, 120 + 60 * tissue, 0)
    flair = np.where(foreground, 90 - 50 * tissue + 90 * lesion, 0)
    return {"t1": t1.clip(0, 255).round(), "flair": flair.clip(0, 255).round(), "mask": lesion.astype(float)}


HEAD = head()

fields_of_view = st.builds(
    lambda field, matrix: field / matrix,
    st.integers(120, 500),
    st.sampled_from([128, 160, 192, 256, 288, 320, 384, 512, 768]),
)
decimals = st.builds(lambda digits, number: round(number, digits), st.integers(1, 4), st.floats(0.2, 7.0))
spacings = st.tuples(*[st.one_of(fields_of_view, decimals)] * 3)
stored_ways = st.builds(
    Stored,
    st.permutations(range(3)).map(tuple),
    st.tuples(*[st.sampled_from([1, -1])] * 3),
    st.sampled_from(["sform", "qform", "both"]),
    st.sampled_from([nib.Nifti1Image, nib.Nifti2Image]),
    st.sampled_from([".nii", ".nii.gz"]),
    st.sampled_from(["u1", "<i2", ">i2", "<i4", "<f4", ">f4", "<f8"]),
    st.sampled_from(sorted(UNITS)),
    st.booleans(),
)
turns = st.builds(
    lambda axis, degrees: Rotation.from_rotvec(np.radians(degrees) * np.array(axis) / np.linalg.norm(axis)).as_matrix(),
    st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda axis: np.linalg.norm(axis) > 0.1),
    st.floats(0, STEEPEST_DEGREES),
)
configs = st.builds(
    DataConfig,
    size=st.sampled_from([16, 32]),
    spacing_mm=st.sampled_from([0.7, 1.0, 1.5, 4.0]),
    enhance=st.sampled_from(["off", "corrected"]),
    equalise=st.sampled_from(["off", "global", "clahe"]),
    clusters=st.sampled_from([None, None, None, 3]),
)


class BrightTissue:
    """A deterministic stand-in for a trained system, which calls the second modality's bright tissue lesion."""

    def __init__(self):
        self.networks = {}

    def predict(self, batch):
        return Prediction(probability=((batch.image[:, 1:2] + 1) / 2).clamp(0, 1))


def predictor(config: DataConfig) -> Predictor:
    data = config.model_copy(update={"modalities": config.modalities or MODALITIES, "regions": ("wt",)})
    whole = recipe("ganet_seg_debug").model_copy(update={"data": data})
    return Predictor(Model(whole, BrightTissue(), Thresholds({"wt": 0.05}), (), BINARY))


def write(file: Path, volume: np.ndarray, affine: np.ndarray, stored: Stored) -> Path:
    """The volume, whose affine on RAS axes is given in mm, stored in this way."""
    change = np.stack([np.argsort(stored.order), stored.flips], axis=1).astype(float)
    voxels = nib.orientations.apply_orientation(volume, change).astype(stored.dtype)
    moved = affine @ nib.orientations.inv_ornt_aff(change, volume.shape)
    moved[:3] *= UNITS[stored.unit]
    if stored.float32_affine:
        moved = moved.astype(np.float32).astype(np.float64)
    file.parent.mkdir(parents=True, exist_ok=True)
    image = stored.version(voxels, None, dtype=voxels.dtype)
    image.header["pixdim"][1:4] = np.linalg.norm(moved[:3, :3], axis=0)
    if stored.forms != "sform":
        image.header.set_qform(moved, 1)
    if stored.forms != "qform":
        image.header.set_sform(moved, 1)
    image.header.set_xyzt_units(stored.unit)
    nib.save(image, file.with_name(file.name + stored.suffix))
    return file.with_name(file.name + stored.suffix)


@pytest.mark.slow
@settings(max_examples=100, derandomize=True, deadline=None, database=None, phases=[Phase.generate])
@given(spacings, turns, st.tuples(*[st.floats(-200, 200)] * 3), st.tuples(*[stored_ways] * 3), configs)
def test_predict_scan_does_not_depend_on_stored_geometry(spacing, turn, origin, ways, config):
    plain = np.diag([*spacing, 1.0])
    image = np.stack([HEAD[name] for name in MODALITIES]).astype(np.float32)
    reference = Scan(MODALITIES, image, HEAD["mask"].astype(np.uint8), Grid(SHAPE, plain))
    model = predictor(config)
    wanted = model.predict_scan(reference)
    turned = nib.affines.from_matvec(turn * spacing, origin)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = {
            part: Source((write(folder / part, HEAD[part], turned, way),))
            for part, way in zip(("t1", "flair", "mask"), ways, strict=True)
        }
        case = Case("a", "a", "s", {part: files[part] for part in MODALITIES}, files["mask"])
        scan = load_scan(case, MODALITIES)
        got = model.predict_scan(scan)
        written, *_ = write_case(case, got, model, folder / "out", Extras())
        mask, grid = load_nifti(written, None)
        source = nib.load(case.images["t1"].files[0])
        assert np.array_equal(nib.load(written).affine, source.affine)
    assert scan.warnings == ()
    assert picture_spacing(scan.grid) == picture_spacing(reference.grid)
    assert np.array_equal(got.prepared.image, wanted.prepared.image)
    assert np.array_equal(got.prepared.masks, wanted.prepared.masks)
    assert wanted.regions.any()
    assert np.array_equal(reorient(mask, grid, Grid(SHAPE, turned)), wanted.regions[0])


def case_of(folder: Path, affine: np.ndarray, **ways: Stored) -> Case:
    files = {part: Source((write(folder / part, HEAD[part], affine, ways.get(part, PLAIN)),)) for part in HEAD}
    return Case("a", "a", "s", {part: files[part] for part in MODALITIES}, files["mask"])


PLAIN = Stored((0, 1, 2), (1, 1, 1), "both", nib.Nifti1Image, ".nii", "<i2", "mm", False)
CONFIG = DataConfig(size=32, spacing_mm=4.0, modalities=("flair", "t1"), regions=("wt",))


def test_write_case_uses_grid_of_first_model_modality(tmp_path):
    """Not on the first file of the case, whose axes may be others."""
    affine = np.diag([4.0, 4.0, 5.0, 1.0])
    case = case_of(tmp_path, affine, t1=replace(PLAIN, order=(2, 0, 1), flips=(-1, 1, -1)))
    model = predictor(CONFIG)
    prediction = model.predict_scan(load_scan(case, model.modalities))
    written, *_ = write_case(case, prediction, model, tmp_path / "out", Extras())
    assert np.array_equal(nib.load(written).affine, affine)
    assert nib.load(written).shape == SHAPE
    mask, _ = load_nifti(written, None)
    alone = case_of(tmp_path / "alone", affine)
    assert np.array_equal(mask, model.predict_scan(load_scan(alone, model.modalities)).regions[0])
    assert mask.any()


def test_evaluate_measures_in_mm_and_warns_when_sform_lost_scale(tmp_path):
    affine = np.diag([-4.0, -4.0, 4.0, 1.0])
    arm = ModelArm("model", "model", predictor(CONFIG))
    right = evaluate([arm], [case_of(tmp_path / "right", affine)], "test").rows["model"][0].scores
    case = case_of(tmp_path / "lost", affine)
    for source in (*case.images.values(), case.mask):
        stored = nib.load(source.files[0])
        image = nib.Nifti1Image(np.array(stored.dataobj), affine)
        image.set_qform(affine, 1)
        image.set_sform(np.diag([-1.0, -1.0, 1.0, 1.0]), 2)
        nib.save(image, source.files[0])
    warnings = []
    other = ModelArm("other", "comparison", arm.predictor)
    result = evaluate([arm, other], [case], "test", warn=warnings.append)
    assert result.rows["model"][0].scores == right
    assert right["wt/hd95_mm"] > 4
    of_geometry = [
        warning for warning in warnings if "sform" in warning
    ]  # all of the foreground is called lesion here, too
    assert of_geometry == [f"a: {tmp_path}/lost/flair.nii: sform gives 1 x 1 x 1 mm, pixdim 4 x 4 x 4; pixdim is used"]

import itertools
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from ganseg_dist.config import DataConfig
from ganseg_dist.data.batch import BACKGROUND
from ganseg_dist.data.grid import Grid
from ganseg_dist.data.preprocess import (
    DARKEST,
    PICTURE_AXES,
    from_picture_axes,
    intensities_of,
    picture_shape,
    prepare_scan,
    restore,
    to_picture_axes,
)
from ganseg_dist.data.scan import Scan
from ganseg_dist.errors import DataError
from tests.data.cohorts import dice

ORIENTATIONS = [
    "".join(axis[flip] for axis, flip in zip(axes, flips, strict=True))
    for axes in itertools.permutations(("RL", "AP", "SI"))
    for flips in itertools.product((0, 1), repeat=3)
]
"""All 48: six orders of the axes, each axis either way."""

MM = (1.5, 1.0, 2.5)
"""Left-right, front-back, up-down."""
SHAPE_RAS = (61, 75, 17)


def ellipsoid(shape, centre, radii):
    axes = np.meshgrid(*(np.arange(side) for side in shape), indexing="ij")
    return sum(((a - c) / r) ** 2 for a, c, r in zip(axes, centre, radii, strict=True)) <= 1


def head_ras(shape=SHAPE_RAS, mm=MM) -> Scan:
    """An off-centre head in RAS axes, with a lesion to the front left."""
    rng = np.random.default_rng(0)
    foreground = ellipsoid(
        shape, (shape[0] * 0.55, shape[1] * 0.48, shape[2] * 0.5), np.multiply(shape, (0.36, 0.4, 0.45))
    )
    lesion = ellipsoid(shape, (shape[0] * 0.4, shape[1] * 0.6, shape[2] * 0.5), np.multiply(shape, (0.13, 0.13, 0.3)))
    image = np.where(foreground, 500 + 40 * rng.standard_normal(shape) + 300 * lesion, 0).astype(np.float32)
    affine = np.diag([*mm, 1.0])
    affine[:3, 3] = (-40, -60, 11)
    labels = np.where(lesion & foreground, 2, 0).astype(np.uint8)
    return Scan(("t1", "flair"), np.stack([image, image**1.1]), labels, Grid(shape, affine))


def reoriented(scan: Scan, codes: str) -> Scan:
    """The same head stored with other axes."""
    change = nib.orientations.ornt_transform(
        nib.io_orientation(scan.grid.affine), nib.orientations.axcodes2ornt(tuple(codes))
    )
    image = np.stack([nib.orientations.apply_orientation(volume, change) for volume in scan.image])
    labels = nib.orientations.apply_orientation(scan.labels, change)
    affine = scan.grid.affine @ nib.orientations.inv_ornt_aff(change, scan.grid.shape)
    return Scan(scan.modalities, np.ascontiguousarray(image), np.ascontiguousarray(labels), Grid(labels.shape, affine))


def round_trip(scan: Scan, config: DataConfig) -> float:
    """Dice of the lesion before preparation and after restoration."""
    prepared = prepare_scan(scan, config, ("wt",))
    back = restore(prepared.masks.astype(np.float32), prepared.placement)
    assert back.shape == (1, *scan.grid.shape)
    return dice(back[0] > 0.5, scan.labels > 0)


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_restore_returns_mask_to_each_orientation(codes):
    scan = reoriented(head_ras(), codes)
    assert nib.aff2axcodes(scan.grid.affine) == tuple(codes)
    assert round_trip(scan, DataConfig(size=96, spacing_mm=1.0)) > 0.97


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_prepare_scan_gives_same_slices_for_each_orientation(codes):
    config = DataConfig(size=64, spacing_mm=1.2)
    wanted = prepare_scan(head_ras(), config, ("wt",))
    got = prepare_scan(reoriented(head_ras(), codes), config, ("wt",))
    assert got.image.shape == (17, 2, 64, 64)
    assert np.array_equal(got.image, wanted.image)
    assert np.array_equal(got.masks, wanted.masks)


def test_prepare_scan_puts_front_up_and_patient_left_left():
    prepared = prepare_scan(head_ras(), DataConfig(size=64, spacing_mm=1.2), ("wt",))
    foreground = np.argwhere(prepared.image[8, 0] > BACKGROUND).mean(0)
    lesion = np.argwhere(prepared.masks[8, 0] > 0).mean(0)
    assert lesion[0] < foreground[0], "the front is up"
    assert lesion[1] < foreground[1], "the left is left"
    assert PICTURE_AXES == ("P", "R", "S")


def test_prepare_scan_aligns_mask_with_image():
    prepared = prepare_scan(head_ras(), DataConfig(size=96, spacing_mm=1.0), ("wt",))
    inside = prepared.image[:, 0][prepared.masks[:, 0] > 0]
    around = prepared.image[:, 0][(prepared.masks[:, 0] == 0) & (prepared.image[:, 0] > BACKGROUND)]
    assert np.median(inside) > np.percentile(around, 95)


@pytest.mark.parametrize(
    ("shape", "mm"),
    [((61, 75, 17), (1, 1, 1)), ((40, 41, 9), (3, 3, 5)), ((33, 90, 5), (3.1, 0.9, 6)), ((128, 50, 3), (0.7, 1.9, 4))],
)
@pytest.mark.parametrize("config", [DataConfig(size=64, spacing_mm=1.0), DataConfig(size=128, spacing_mm=1.5)])
def test_restore_returns_mask_of_odd_shapes_and_spacings(shape, mm, config):
    """Where the window's pixels are about as fine as the voxels."""
    scan = head_ras(shape, mm)
    largest = max(shape[0] * mm[0], shape[1] * mm[1], config.size * config.spacing_mm)
    tolerance = 0.97 if largest / config.size <= min(mm[:2]) else 0.85
    assert round_trip(scan, config) > tolerance


def test_restore_returns_mask_without_spacing():
    scan = head_ras((70, 50, 9))
    picture = Scan(scan.modalities, scan.image, scan.labels, Grid(scan.grid.shape, None))
    assert picture_shape(picture.grid) == (70, 50, 9)
    assert to_picture_axes(picture.labels, picture.grid) is picture.labels
    assert round_trip(picture, DataConfig(size=96, spacing_mm=1.5)) > 0.97


@pytest.mark.parametrize("codes", ["RAS", "LPS", "ASR", "IPL"])
def test_from_picture_axes_inverts_to_picture_axes(codes):
    scan = reoriented(head_ras(), codes)
    there = to_picture_axes(scan.labels, scan.grid)
    assert there.shape == picture_shape(scan.grid) == (75, 61, 17)
    assert np.array_equal(from_picture_axes(there, scan.grid), scan.labels)


@pytest.mark.parametrize("size", [16, 64])
@pytest.mark.parametrize("corner", [(0.5, 0.5), (0.0, 0.0), (1.0, 0.3)])
def test_prepare_scan_window_contains_whole_foreground(corner, size):
    """A head larger than the window is given coarser pixels; one that touches the frame is padded."""
    shape = (90, 70, 4)
    foreground = np.zeros(shape, np.float32)
    start = [round(c * (side - length)) for c, side, length in zip(corner, shape, (61, 47), strict=False)]
    foreground[start[0] : start[0] + 61, start[1] : start[1] + 47] = 1
    foreground[..., 0] = 0  # one slice of background, so that the border counts as background
    rng = np.random.default_rng(0)
    image = np.where(foreground > 0, 400 + 20 * rng.standard_normal(shape), 0).astype(np.float32)
    scan = Scan(("t1",), image[None], foreground.astype(np.uint8), Grid(shape, np.diag([1.1, 0.9, 3.0, 1.0])))
    prepared = prepare_scan(scan, DataConfig(size=size, spacing_mm=0.5), ("wt",))
    back = restore(prepared.masks.astype(np.float32), prepared.placement)[0]
    for axis in (0, 1):
        found = np.flatnonzero((back > 0.4).any(axis=tuple({0, 1, 2} - {axis})))
        true = np.flatnonzero(foreground.any(axis=tuple({0, 1, 2} - {axis})))
        reach = prepared.placement.sides[axis] / size  # a pixel of the window, in voxels
        assert abs(int(found[0]) - int(true[0])) <= reach
        assert abs(int(found[-1]) - int(true[-1])) <= reach
    # Rows are native axis 1, from front to back.
    rows, columns = (np.flatnonzero(foreground.any(axis=axes)) for axes in ((0, 2), (1, 2)))
    first_row = 69 - int(rows[-1])
    origin, sides = prepared.placement.origin, prepared.placement.sides
    assert origin[0] <= first_row
    assert origin[0] + sides[0] >= first_row + len(rows)
    assert origin[1] <= columns[0]
    assert origin[1] + sides[1] >= columns[-1] + 1


def test_prepare_scan_window_is_square_in_mm():
    prepared = prepare_scan(head_ras(mm=(0.8, 2.4, 3.0)), DataConfig(size=64, spacing_mm=3.0), ("wt",))
    rows, columns = prepared.placement.sides
    assert rows * 2.4 == pytest.approx(192, abs=2.4)
    assert columns * 0.8 == pytest.approx(192, abs=0.8)


@pytest.mark.parametrize("noise", [-2.5e-8, 2.5e-8, 6e-8])
def test_prepare_scan_ignores_float_noise_in_spacing(noise):
    """128 / 3.9999999 is 32.0000008, whose ceiling is 33."""
    config = DataConfig(size=32, spacing_mm=4.0)
    scan = head_ras(mm=(4.0, 4.0, 5.0))
    noisy = Scan(scan.modalities, scan.image, scan.labels, Grid(scan.grid.shape, scan.grid.affine * (1 + noise)))
    wanted, got = prepare_scan(scan, config, ("wt",)), prepare_scan(noisy, config, ("wt",))
    assert got.placement.sides == wanted.placement.sides
    assert np.array_equal(got.image, wanted.image)


def test_prepare_scan_window_of_whole_voxels_is_exact():
    shape = (20, 20, 2)
    image = np.zeros((1, *shape), np.float32)
    image[0, 8:12, 8:12] = np.arange(1, 17).reshape(4, 4, 1)
    for size in (3.9999999, 4.0, 4.0000001, 4.0004):
        scan = Scan(("t1",), image, None, Grid(shape, np.diag([size, size, 5.0, 1.0])))
        assert prepare_scan(scan, DataConfig(size=16, spacing_mm=4.0), ()).placement.sides == (16, 16)


def test_prepare_scan_scales_by_median_and_interquartile_range():
    """Median 500, interquartile range 200: 500 + 4 * 200 / 1.349 is the end of the range."""
    shape = (20, 20, 3)
    foreground = np.zeros(shape, bool)
    foreground[4:16, 4:16, :] = True
    values = np.resize([400.0, 400.0, 500.0, 600.0, 600.0], foreground.sum())
    image = np.zeros(shape, np.float32)
    image[foreground] = values
    image[10, 10, 1] = 1e6
    scan = Scan(("t1",), image[None], None, Grid(shape, np.eye(4)))
    prepared = prepare_scan(scan, DataConfig(size=24, spacing_mm=1.0), ())
    assert prepared.masks is None
    levels = np.unique(prepared.image.round(4))
    step = 100 / (4 * 200 / 1.349)
    assert levels == pytest.approx([-1, -step, 0, step, 1], abs=1e-3)


def test_prepare_scan_separates_background_from_tissue():
    prepared = prepare_scan(head_ras(), DataConfig(size=96, spacing_mm=1.0), ("wt",))
    assert prepared.image.min() == BACKGROUND
    assert prepared.image.max() <= 1
    corners = prepared.image[:, :, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners == BACKGROUND).all()
    assert prepared.image[8, :, 40:56, 40:56].min() >= DARKEST - 1e-6


def test_prepare_scan_masks_are_nested_unions_of_labels():
    scan = head_ras()
    labels = scan.labels.copy()
    lesion = np.argwhere(labels > 0)
    for value, part in zip((1, 2, 3), np.array_split(lesion, 3), strict=True):
        labels[tuple(part.T)] = value
    scan = Scan(scan.modalities, scan.image, labels, scan.grid)
    masks = prepare_scan(scan, DataConfig(size=96, spacing_mm=1.0), ("wt", "tc", "et")).masks
    sizes = masks.sum((0, 2, 3)).astype(float)
    assert masks.shape[1] == 3
    assert sizes[1] == pytest.approx(sizes[0] * 2 / 3, rel=0.1)
    assert sizes[2] == pytest.approx(sizes[0] / 3, rel=0.1)
    assert (masks[:, 2] <= masks[:, 1]).all()
    assert (masks[:, 1] <= masks[:, 0]).all()


@pytest.mark.parametrize(("reading", "sign"), [("corrected", 1), ("paper", -1)])
def test_prepare_scan_enhancement_sets_contrast_sign(reading, sign):
    plain = prepare_scan(head_ras(), DataConfig(size=64, spacing_mm=1.0), ("wt",))
    enhanced = prepare_scan(head_ras(), DataConfig(size=64, spacing_mm=1.0, enhance=reading), ("wt",))
    lesion = plain.masks[:, 0] > 0
    tissue = (plain.image[:, 0] > -0.9) & ~lesion
    gap = enhanced.image[:, 0][lesion].mean() - enhanced.image[:, 0][tissue].mean()
    assert sign * gap > 0.1
    assert np.array_equal(enhanced.image > BACKGROUND, plain.image > BACKGROUND)


def test_usable_slices_have_enough_foreground_or_a_lesion():
    prepared = prepare_scan(head_ras(), DataConfig(size=64, spacing_mm=1.2), ("wt",))
    assert prepared.foreground.shape == prepared.lesion.shape == (17,)
    assert not prepared.usable[0]
    assert prepared.usable[8]
    assert prepared.lesion[8] == prepared.masks[8, 0].sum() > 0
    masks = prepared.masks.copy()
    masks[0, 0, 5, 5] = 1
    assert type(prepared)(prepared.image, masks, prepared.placement).usable[0]


def test_prepare_scan_of_empty_scan_is_all_background():
    scan = Scan(("t1",), np.zeros((1, 20, 24, 3), np.float32), None, Grid((20, 24, 3), np.eye(4)))
    prepared = prepare_scan(scan, DataConfig(size=32, spacing_mm=1.0), ())
    assert (prepared.image == BACKGROUND).all()
    assert not prepared.usable.any()


def test_restore_fills_outside_with_given_value():
    prepared = prepare_scan(head_ras(), DataConfig(size=48, spacing_mm=1.0), ("wt",))
    back = restore(np.ones((17, 1, 48, 48), np.float32), prepared.placement, outside=-1.0)
    assert np.unique(back.round(5)).tolist() == [-1, 1]


def test_prepare_scan_and_restore_stay_in_range():
    shape = (151, 143, 2)
    noise = np.random.default_rng(0).uniform(50, 500, shape)
    head = np.where(ellipsoid(shape, (75, 71, 1), (70, 66, 9)), noise, 0)
    head[60:90, 60:90] = 2000  # a plateau at the brightest value there is
    scan = Scan(("flair",), head[None].astype(np.float32), None, Grid(shape, np.diag([1.1, 1.3, 3.0, 1.0])))
    for spacing in (1.7, 2.0, 2.7, 3.1):
        prepared = prepare_scan(scan, DataConfig(size=128, spacing_mm=spacing), ())
        assert prepared.image.max() == 1.0
        certain = restore(np.ones((2, 1, 128, 128), np.float32), prepared.placement)
        assert set(np.unique(certain)) <= {0.0, 1.0}


def colour_scan(levels: np.ndarray, modalities: tuple[str, ...] = ("red", "green", "blue")) -> Scan:
    """Channels (C, rows, columns) of 0 to 255, with a mask over the first row."""
    image = levels.astype(np.float32)[..., None]
    labels = np.zeros(image.shape[1:], np.uint8)
    labels[0] = 1
    return Scan(modalities, image, labels, Grid(labels.shape, None))


def test_prepare_scan_keeps_displayed_colours():
    levels = np.stack([np.full((16, 16), level) for level in (0, 51, 255)])
    prepared = prepare_scan(colour_scan(levels), DataConfig(size=16), ("wt",))
    np.testing.assert_allclose(prepared.image[0, :, 8, 8], [-0.999, -0.6, 1.0], atol=1e-6)
    assert prepared.foreground.tolist() == [1.0], "the whole picture is foreground"
    assert prepared.lesion.tolist() == [16]


def test_prepare_scan_keeps_black_as_foreground_and_pads_with_background():
    prepared = prepare_scan(colour_scan(np.zeros((3, 16, 32))), DataConfig(size=32), ("wt",))
    rows = (prepared.image > -1).all(axis=(0, 1, 3))
    assert rows.tolist() == [False] * 8 + [True] * 16 + [False] * 8
    assert (prepared.image[:, :, :8] == -1).all()
    assert (prepared.image[:, :, 8:24].astype(np.float16) > -1).all(), "as stored, too"
    assert prepared.foreground.tolist() == [0.5]
    assert prepared.masks[0, 0].any(axis=1).tolist() == [False] * 8 + [True] + [False] * 23


def test_restore_returns_colour_picture():
    levels = np.random.default_rng(0).integers(0, 256, (3, 40, 64))
    prepared = prepare_scan(colour_scan(levels), DataConfig(size=64), ("wt",))
    back = restore(prepared.image, prepared.placement, outside=-1.0)
    np.testing.assert_allclose(back[..., 0], np.maximum(levels / 127.5 - 1, -0.999), atol=1e-5)


@pytest.mark.parametrize(
    ("modalities", "intensities", "colour"),
    [
        (("red", "green", "blue"), "auto", True),
        (("green",), "auto", True),
        (("t1", "flair", "t1ce"), "auto", False),
        (("red", "t1"), "auto", False),
        (("grey",), "auto", False),
        (("grey",), "colour", True),
        (("red", "green", "blue"), "tissue", False),
    ],
)
def test_intensities_of_follows_modalities_unless_configured(modalities, intensities, colour):
    config = DataConfig(size=16, intensities=intensities)
    assert intensities_of(modalities, config) == ("colour" if colour else "tissue")
    levels = np.zeros((len(modalities), 16, 16))
    levels[:, 4:12, 5:9] = np.arange(32).reshape(8, 4) + 100
    share = prepare_scan(colour_scan(levels, modalities), config, ("wt",)).foreground.item()
    assert share == 1.0 if colour else share < 0.8


@pytest.mark.parametrize("level", [-1, 256])
def test_prepare_scan_rejects_colours_beyond_0_to_255(level):
    levels = np.full((1, 16, 16), 7)
    levels[0, 3, 3] = level
    with pytest.raises(
        DataError, match=r"^data\.intensities: colour needs values of 0 to 255, an image here goes from"
    ):
        prepare_scan(colour_scan(levels, ("grey",)), DataConfig(size=16, intensities="colour"), ("wt",))


@pytest.mark.parametrize("scale", [1e-12, 1e-9, 1e-6, 1e11])
def test_prepare_scan_is_invariant_to_intensity_unit(scale):
    """A diffusivity in m^2/s is of the order of 1e-9."""
    scan = head_ras()
    config = DataConfig(size=64)
    expected = prepare_scan(scan, config, ("wt",)).image
    found = prepare_scan(replace(scan, image=scan.image * np.float32(scale)), config, ("wt",)).image
    assert np.abs(found - expected).max() < 1e-4
    assert found[found > -1].std() > 0.1


@pytest.mark.parametrize("value", [5e-9, 5.0, 9e14])
def test_prepare_scan_of_flat_tissue_is_finite(value):
    scan = head_ras()
    flat = np.where(scan.image > 0, np.float32(value), np.float32(0))
    image = prepare_scan(replace(scan, image=flat), DataConfig(size=64), ("wt",)).image
    assert np.isfinite(image).all()
    assert image.max() <= 1e-3


@pytest.mark.filterwarnings("ignore:invalid value")
def test_prepare_scan_rejects_intensities_that_become_nan():
    scan = head_ras()
    scan.image[0, 30, 30, 8] = np.nan
    with pytest.raises(DataError, match=r"^scan: intensities became NaN or infinite in preparation; "):
        prepare_scan(scan, DataConfig(size=64), ("wt",))

import nibabel as nib
import numpy as np
import pytest

from ganseg_dist.data.grid import Flaw, Grid, distinct_notes, grid_flaw, reference_grid, reorient, rounded_mm

FIELD_OVER_MATRIX = [250 / 256, 220 / 256, 240 / 512, 250 / 512, 200 / 288, 300 / 256, 205 / 384]
DECIMALS = [0.7, 0.86, 0.8594, 0.46875, 1.0, 3.0, 4.0, 5.5, 7.25]
SHAPE = (5, 6, 7)


@pytest.mark.parametrize("size", FIELD_OVER_MATRIX + DECIMALS)
def test_rounded_mm_restores_size_from_float32(size):
    rng = np.random.default_rng(0)
    assert rounded_mm(size) == size
    assert rounded_mm(np.float32(size)) == size
    for _ in range(50):
        direction = rng.normal(size=3)
        column = (size * direction / np.linalg.norm(direction)).astype(np.float32).astype(np.float64)
        assert rounded_mm(np.linalg.norm(column)) == size


def test_rounded_mm_changes_size_by_at_most_1e_6():
    for size in np.random.default_rng(0).uniform(0.01, 12, 2000):
        assert rounded_mm(size) == pytest.approx(size, rel=1e-6, abs=0)


def oblique_affine(mm=(0.8, 1.2, 3.0)) -> np.ndarray:
    """30 degrees about each of two axes: no column is within 20 degrees of a patient's axis."""
    turn = nib.eulerangles.euler2mat(np.radians(30), np.radians(30), 0)
    return nib.affines.from_matvec(turn * mm, (-11, 7, 3))


def stored_reoriented(volume, affine, order, flips):
    """The same volume with its axes in another order, some the other way round."""
    change = np.stack([np.argsort(order), flips], axis=1).astype(float)
    voxels = nib.orientations.apply_orientation(volume, change)
    return voxels, Grid(voxels.shape, affine @ nib.orientations.inv_ornt_aff(change, volume.shape))


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 0, 1), (1, 2, 0)])
@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, 1), (1, -1, -1)])
@pytest.mark.parametrize("affine", [np.diag([0.8, 1.2, 3.0, 1.0]), oblique_affine()], ids=["straight", "oblique"])
def test_reorient_restores_volume_of_permuted_and_flipped_axes(order, flips, affine):
    volume = np.arange(np.prod(SHAPE)).reshape(SHAPE)
    reference = Grid(SHAPE, affine)
    voxels, grid = stored_reoriented(volume, affine, order, flips)
    assert grid_flaw(grid, reference) is None
    back = reorient(voxels, grid, reference)
    assert np.array_equal(back, volume)
    assert back.flags["C_CONTIGUOUS"]


def test_grid_flaw_reports_offset_of_reoriented_volume():
    affine = np.diag([1.0, 1, 1, 1])
    _, grid = stored_reoriented(np.zeros(SHAPE), nib.affines.from_matvec(np.eye(3), (0, 9, 0)), (2, 1, 0), (1, -1, 1))
    flaw = grid_flaw(grid, Grid(SHAPE, affine))
    assert flaw is not None
    assert flaw.problem == "affine places it up to 9.0 mm from the other files"


def test_grid_flaw_compares_shapes_along_same_axes():
    _, grid = stored_reoriented(np.zeros((5, 6, 8)), np.eye(4), (2, 0, 1), (1, 1, 1))
    flaw = grid_flaw(grid, Grid(SHAPE, np.eye(4)))
    assert flaw is not None
    assert flaw.problem == "shape (5, 6, 8) differs from the other files' (5, 6, 7)"


def test_grid_flaw_ignores_float32_rounding():
    grid = Grid(SHAPE, oblique_affine() * (1 + 6e-8))
    assert grid_flaw(grid, Grid(SHAPE, oblique_affine())) is None


def test_grid_flaw_reports_missing_orientation():
    nowhere = Grid(SHAPE, np.eye(4), (Flaw("no-orientation", "", ""),))
    placed = Grid(SHAPE, nib.affines.from_matvec(np.eye(3), (50, 0, 0)))
    assert (nowhere.sides_known, placed.sides_known, Grid(SHAPE, None).sides_known) == (False, True, False)
    flaw = grid_flaw(nowhere, placed)
    assert flaw is not None
    assert flaw.problem == "has neither sform nor qform, so it has no place among the other files"
    assert grid_flaw(nowhere, nowhere) is None
    flaw = grid_flaw(placed, nowhere)  # resampling to an unknown orientation could mirror it
    assert flaw is not None
    assert flaw.problem == "lies elsewhere than the other files, which have neither sform nor qform"
    assert flaw.remedy == "copy both to them from this file if its voxels lie on theirs"


def test_reference_grid_is_majority_grid_for_any_axis_order():
    elsewhere = Grid(SHAPE, nib.affines.from_matvec(np.eye(3), (50, 0, 0)))
    _, turned = stored_reoriented(np.zeros(SHAPE), np.eye(4), (2, 0, 1), (1, -1, 1))
    straight = Grid(SHAPE, np.eye(4))
    assert reference_grid([elsewhere, turned, straight]) is turned


def test_distinct_notes_keeps_first_file_of_each_note(tmp_path):
    one, other = Flaw("spacing", "a", "b"), Flaw("spacing", "c", "d")
    files = [
        (tmp_path / name, Grid(SHAPE, np.eye(4), notes))
        for name, notes in (("x", ()), ("y", (one,)), ("z", (one, other)))
    ]
    assert distinct_notes(files) == [(tmp_path / "y", one), (tmp_path / "z", other)]

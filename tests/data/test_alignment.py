import numpy as np
import pytest
from scipy import ndimage

from ganseg_dist.data.alignment import better_moves
from tests.data.cohorts import MODALITIES, brain


def volumes(patient, **kind):
    images, _ = brain(patient, **kind)
    return {modality: images[modality].astype(np.float32) for modality in MODALITIES}


@pytest.mark.parametrize("skull", [False, True])
@pytest.mark.parametrize("patient", range(5))
def test_better_moves_is_empty_for_aligned_volumes(patient, skull):
    assert better_moves(volumes(patient, skull=skull)) == {}


@pytest.mark.parametrize(
    ("move", "name"),
    [
        (lambda v: np.roll(v, 3, 0), "a shift along axis 0"),
        (lambda v: np.roll(v, -4, 2), "a shift along axis 2"),
        (lambda v: np.flip(v, 0), "a flip of axis 0"),
        (lambda v: np.flip(v, 1), "a flip of axis 1"),
        (lambda v: np.flip(v, 2), "a flip of axis 2"),
        (lambda v: ndimage.rotate(v, 12, (0, 1), reshape=False, order=1), "a turn in the plane of axes 0 and 1"),
        (lambda v: ndimage.rotate(v, -12, (1, 2), reshape=False, order=1), "a turn in the plane of axes 1 and 2"),
    ],
)
@pytest.mark.parametrize("moved", ["t1", "flair"])
def test_better_moves_names_moved_modality_and_move(move, name, moved):
    case = volumes(1)
    case[moved] = move(case[moved])
    assert better_moves(case) == {moved: name}


def test_better_moves_is_empty_for_a_single_modality():
    assert better_moves({"t1": volumes(0)["t1"]}) == {}
    assert better_moves({}) == {}


def test_better_moves_ignores_shifts_across_few_slices():
    thin = {modality: volume[:, :, 14:18] for modality, volume in volumes(0).items()}
    assert better_moves(thin) == {}


def test_better_moves_is_empty_for_tiny_volumes():
    rng = np.random.default_rng(0)
    assert better_moves({name: rng.uniform(0, 900, (12, 11, 9)).astype(np.float32) for name in ("t1", "flair")}) == {}

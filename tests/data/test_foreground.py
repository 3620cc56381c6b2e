import time

import numpy as np
import pytest
from scipy import ndimage

from ganseg_dist.data.cohort import Source
from ganseg_dist.data.foreground import foreground_mask, is_skull_stripped
from ganseg_dist.data.readers import read_cohort
from ganseg_dist.data.scan import load_scan, load_volume
from tests.data.cohorts import MODALITIES, brain, dice


def stacked_brain(patient, **kind):
    images, labels = brain(patient, **kind)
    return np.stack([images[m] for m in MODALITIES]).astype(np.float32), labels


def test_foreground_mask_of_stripped_brain_is_nonzero_voxels():
    image, _ = stacked_brain(0)
    np.testing.assert_array_equal(foreground_mask(image), (image != 0).any(0))
    assert is_skull_stripped(image, foreground_mask(image), (4.0, 4.0, 4.0))


def test_foreground_mask_ignores_background_value():
    image, _ = stacked_brain(0)
    np.testing.assert_array_equal(foreground_mask(image - 1024), foreground_mask(image))


def test_foreground_mask_ignores_cavities_and_noise():
    image, _ = stacked_brain(0)
    brain_only = (image != 0).any(0)
    holed = image.copy()
    holed[:, 18:22, 22:26, 14:18] = 0
    holed[:, 1, 1, 1] = 900  # a lone bright voxel
    holed += np.where(brain_only, 0, np.random.default_rng(0).normal(scale=0.1, size=brain_only.shape)).astype(
        np.float32
    )
    np.testing.assert_array_equal(foreground_mask(holed), brain_only)


@pytest.mark.parametrize("grey", [0, 600])
def test_foreground_mask_finds_head_in_noise_on_any_background(grey):
    image, _ = stacked_brain(0, skull=True)
    head = (image > 500).any(0)  # the rim and what it encloses
    head = ndimage.binary_fill_holes(head)
    image[0] = grey + image[0] * (-0.5 if grey else 1)  # darker than its background
    foreground = foreground_mask(image)
    assert dice(foreground, head) > 0.97
    assert not is_skull_stripped(image, foreground, (4.0, 4.0, 4.0))


def test_is_skull_stripped_is_false_for_head_sized_foreground():
    image, _ = stacked_brain(0)
    foreground = foreground_mask(image)
    litres = foreground.sum() / 1e6
    assert is_skull_stripped(image, foreground, (1.0, 1.0, 2.0 / litres))
    assert not is_skull_stripped(image, foreground, (1.0, 1.0, 3.0 / litres))
    assert is_skull_stripped(image, foreground, None)


def test_foreground_mask_of_constant_volume_is_empty():
    image = np.full((2, 16, 16, 4), 7, np.float32)
    assert not foreground_mask(image).any()
    assert not is_skull_stripped(image, foreground_mask(image), None)


@pytest.mark.slow
def test_foreground_mask_covers_real_heads(shared_data):
    cases = read_cohort(shared_data / "lgg").cases
    for case in (*cases[::4], *cases[12:14]):  # with the grey background and the head that fills its frame
        scan = load_scan(case)
        foreground = foreground_mask(scan.image)
        assert foreground[scan.labels > 0].mean() > 0.99, case.id
        assert 0.25 < foreground.mean() < 0.85, case.id
        assert not is_skull_stripped(scan.image, foreground, None), case.id
        middle = foreground[:, :, foreground.shape[2] // 2]
        rows, columns = np.nonzero(middle)
        assert middle.sum() > 0.6 * np.ptp(rows) * np.ptp(columns), f"{case.id}: an ellipse fills 0.79 of its box"


def test_foreground_mask_covers_real_brains(shared_data):
    files = [next((shared_data / "ms" / "patient19").glob(f"{name}_*")) for name in ("T1", "T2")]
    volumes, grids = zip(*(load_volume(Source((file,))) for file in files), strict=True)
    image = np.stack(volumes)
    start = time.perf_counter()
    foreground = foreground_mask(image)
    assert time.perf_counter() - start < 3, "0.2 s on an idle machine"
    assert 1.0 < foreground.sum() / 1e6 < 1.3, "litres"
    assert is_skull_stripped(image, foreground, grids[0].spacing_mm)
    for file in sorted((shared_data / "oasis").glob("*.nii.gz"))[:2]:
        volume, grid = load_volume(Source((file,)))
        foreground = foreground_mask(volume[None])
        assert 1.2 < foreground.sum() / 1e6 < 1.8
        assert is_skull_stripped(volume[None], foreground, grid.spacing_mm)

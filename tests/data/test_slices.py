import pickle
from pathlib import Path

import numpy as np
import pytest

from ganseg_dist.config import override
from ganseg_dist.data.readers import read_cohort
from ganseg_dist.data.slices import LESION_CLASSES as CLASSES
from ganseg_dist.data.slices import SliceSet, slice_classes
from ganseg_dist.data.store import content_hash, prepare_case
from ganseg_dist.systems import recipe
from tests.data.cohorts import write_classes


@pytest.fixture
def folders(prepared):
    return [Path(folder) for folder in prepared.cohort["train"]]


@pytest.fixture
def slices(folders):
    return SliceSet.open(folders, ("flair", "t1"), ("wt", "et"))


def test_slice_set_holds_usable_slices_in_case_order(slices):
    assert len(slices) == sum(case.usable.sum() for case in slices.cases)
    for index, case in enumerate(slices.cases):
        indices = slices.slice_of[slices.case_of == index]
        assert indices.tolist() == np.flatnonzero(case.usable).tolist()
    assert 0 < slices.has_lesion.sum() < len(slices)


def test_slice_set_selects_channels_and_regions_by_name(slices):
    index = int(np.flatnonzero(slices.has_lesion)[3])
    case, plane = slices.cases[slices.case_of[index]], slices.slice_of[index]
    image, regions = slices.read(np.array([index]))
    assert image.dtype == regions.dtype == np.float32
    assert np.array_equal(image[0, 0], case.image[plane, case.modalities.index("flair")])
    assert np.array_equal(image[0, 1], case.image[plane, case.modalities.index("t1")])
    assert np.array_equal(regions[0, 0], case.masks[plane, 0])
    assert np.array_equal(regions[0, 1], case.masks[plane, 2])
    assert regions[0, 0].any()


def test_slice_set_reads_in_index_order(slices):
    indices = np.array([7, 2, 7])
    image, _ = slices.read(indices)
    assert np.array_equal(image[0], image[2])
    assert np.array_equal(image[1], slices.read(np.array([2]))[0][0])
    assert not np.array_equal(image[0], image[1])


def test_of_modalities_reads_other_channels_of_same_slices(slices):
    only = slices.of_modalities(("t1",))
    assert len(only) == len(slices)
    assert np.array_equal(only.read(np.array([5]))[0][:, 0], slices.read(np.array([5]))[0][:, 1])


def test_slice_set_without_regions_returns_zero_channels(folders):
    _, regions = SliceSet.open(folders, ("t1",), ()).read(np.array([0, 1]))
    assert regions.shape == (2, 0, 32, 32)


def test_slice_set_of_no_folders_is_empty():
    empty = SliceSet.open([], ("t1",), ("wt",))
    assert len(empty) == len(empty.case_of) == len(empty.has_lesion) == 0


def test_slice_set_pickles_without_voxels(slices):
    slices.read(np.arange(5))
    assert len(pickle.dumps(slices)) < 20_000


LESION = np.array([0, 7])


@pytest.mark.parametrize("classes", [("no lesion", "lesion"), ("lesion", "no lesion")])
def test_slice_classes_prefer_case_class_over_mask(classes):
    assert slice_classes("lesion", None, 2, classes) == ["lesion", "lesion"]
    assert slice_classes("no lesion", LESION, 2, classes) == ["no lesion", "no lesion"]
    assert slice_classes(None, LESION, 2, classes) == ["no lesion", "lesion"]
    assert slice_classes("glioma", LESION, 2, classes) == ["no lesion", "lesion"]
    assert slice_classes(None, None, 2, classes) == [None, None]


def test_slice_classes_ignore_mask_for_other_classes():
    assert slice_classes("glioma", LESION, 2, ("glioma", "none")) == ["glioma", "glioma"]
    assert slice_classes(None, LESION, 2, ("glioma", "none")) == [None, None]


def test_slice_set_labels_are_class_indices(folders):
    found, swapped = (SliceSet.open(folders, ("t1",), ("wt",), order) for order in (CLASSES, CLASSES[::-1]))
    assert np.array_equal(found.label, found.has_lesion)
    assert np.array_equal(swapped.label, ~found.has_lesion)


def test_slice_set_labels_come_from_lesion_class_folders(tmp_path):
    root = write_classes(tmp_path / "made", {"lesion": 2, "no lesion": 3})
    config = override(recipe("gan_detector_debug"), {"data.modalities": ["grey"], "data.classes": list(CLASSES)})
    cases = read_cohort(root).cases
    folders = [prepare_case(tmp_path, case, config.data, content_hash(case)) for case in cases]
    assert SliceSet.open(folders, ("grey",), (), CLASSES).label.tolist() == [1, 1, 0, 0, 0]

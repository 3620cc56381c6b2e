from itertools import pairwise

import numpy as np
import pytest

from ganseg_dist.config import DataConfig
from ganseg_dist.data.batch import BACKGROUND
from ganseg_dist.data.clusters import MOST_POINTS, clustered_channel, clusters, elbow, initial_mask
from ganseg_dist.data.grid import Grid
from ganseg_dist.data.preprocess import prepare_scan
from ganseg_dist.data.scan import Scan
from ganseg_dist.data.store import PreparedCase, prepare_case, prepared_folder

STRIPES = np.repeat([-0.6, 0.8, 0.1], 8)[None].repeat(24, axis=0).astype(np.float32)
"""Three vertical stripes: dim, bright, medium; (24, 24)."""
BRIGHTEST = STRIPES > 0.5
FOREGROUND = np.ones((24, 24), bool)


def noisy(image: np.ndarray) -> np.ndarray:
    return (image + np.random.default_rng(3).normal(0, 0.05, image.shape)).astype(np.float32)


def test_clusters_are_numbered_by_brightness():
    labels = clusters(noisy(STRIPES), FOREGROUND, 3)
    assert np.array_equal(labels, np.repeat([1, 3, 2], 8)[None].repeat(24, axis=0))


def test_initial_mask_is_brightest_cluster():
    assert np.array_equal(initial_mask(noisy(STRIPES), FOREGROUND, 3), BRIGHTEST)


def test_clusters_label_background_zero():
    foreground = FOREGROUND.copy()
    foreground[:, 8:10] = False
    labels = clusters(STRIPES, foreground, 3)
    assert (labels[~foreground] == 0).all()
    assert set(np.unique(labels[foreground])) == {1, 2, 3}


def test_initial_mask_clusters_stack_jointly():
    stack = np.stack([np.where(BRIGHTEST, 0.1, STRIPES), STRIPES])
    mask = initial_mask(stack, np.stack([FOREGROUND, FOREGROUND]), 3)
    assert mask.shape == (2, 24, 24)
    assert not mask[0].any()  # what is bright in this plane is not bright in the scan
    assert np.array_equal(mask[1], BRIGHTEST)


def test_clusters_by_coordinates_separate_distant_blobs():
    # A foreground of three far blobs: k-means of coordinates finds them whatever their intensities.
    foreground = np.zeros((24, 24), bool)
    image = np.full((24, 24), -1.0, np.float32)
    for number, (row, column) in enumerate([(2, 2), (2, 18), (18, 10)]):
        place = np.s_[row : row + 4, column : column + 4]
        foreground[place] = True
        image[place] = [-0.5, 0.9, 0.2][number] + np.linspace(-0.3, 0.3, 16).reshape(4, 4)
    labels = clusters(image, foreground, 3, by="coordinates")
    assert [set(labels[place].ravel()) for place in (np.s_[2:6, 2:6], np.s_[2:6, 18:22], np.s_[18:22, 10:14])] == [
        {1},
        {3},
        {2},
    ]


def test_clusters_are_deterministic_with_subsampling():
    image = np.random.default_rng(0).normal(size=(3, 100, 100)).astype(np.float32)
    foreground = np.ones((3, 100, 100), bool)
    assert foreground.sum() > MOST_POINTS  # so that sampling is part of it
    first = clusters(image, foreground, 3)
    np.random.default_rng(9).random(5)
    np.random.seed(7)  # noqa: NPY002  the global state is not used
    assert np.array_equal(clusters(image, foreground, 3), first)


@pytest.mark.parametrize("foreground", [FOREGROUND, np.zeros_like(FOREGROUND)], ids=["flat tissue", "no tissue"])
def test_initial_mask_is_empty_without_contrast(foreground):
    assert not initial_mask(np.full((24, 24), 0.3, np.float32), foreground, 3).any()


def test_elbow_inertia_matches_hand_computation():
    inertia = elbow([STRIPES, STRIPES], [FOREGROUND, FOREGROUND], largest=3)
    # k = 1 by hand: 192 pixels of each of three levels, twice, about their mean of 0.1.
    assert inertia[0] == pytest.approx(2 * 192 * (0.7**2 + 0.7**2), rel=1e-5)
    # k = 2: the middle joins one of the two at equal distance 0.7, each then 0.35 off their mean.
    assert inertia[1] == pytest.approx(2 * 2 * 192 * 0.35**2, rel=1e-5)
    assert inertia[2] == pytest.approx(0, abs=1e-6)


def test_elbow_inertia_decreases_with_k():
    inertia = elbow([noisy(STRIPES)], [FOREGROUND])
    assert len(inertia) == 8
    assert all(later < earlier for earlier, later in pairwise(inertia))


@pytest.mark.parametrize(
    ("modalities", "looks_at"), [(["t1", "t2", "flair"], 2), (["t2", "t1"], 0), (["red", "green", "blue"], None)]
)
def test_clustered_channel_prefers_flair_then_t2_then_mean(modalities, looks_at):
    image = np.random.default_rng(0).random((2, len(modalities), 4, 4)).astype(np.float32)
    expected = image.mean(axis=1) if looks_at is None else image[:, looks_at]
    assert np.array_equal(clustered_channel(image, modalities), expected)


def head_scan() -> Scan:
    """A round head whose bright middle is seen on FLAIR alone."""
    rows, columns = np.mgrid[:32, :32] - 15.5
    radius = np.hypot(rows, columns)
    grey = 100 + np.random.default_rng(0).normal(0, 5, (32, 32))
    t1, flair = (np.where(radius < 14, grey + extra * (radius < 5), 0) for extra in (0, 200))
    image = np.stack([np.stack([plane] * 3, axis=-1) for plane in (t1, flair)]).astype(np.float32)
    return Scan(("t1", "flair"), image, None, Grid((32, 32, 3), None))


def test_prepare_scan_appends_kmeans_channel():
    plain = prepare_scan(head_scan(), DataConfig(size=32), ())
    clustered = prepare_scan(head_scan(), DataConfig(size=32, clusters=3), ())
    assert clustered.image.shape[1] == len(("t1", "flair", "kmeans"))
    assert np.array_equal(clustered.image[:, :2], plain.image)
    mask = clustered.image[:, 2]
    assert set(np.unique(mask)) == {-1, 1}
    middle = np.hypot(*(np.mgrid[:32, :32] - 15.5)) < 4
    assert (mask[:, middle] == 1).all()
    assert 0.05 < (mask == 1).mean() < 0.5
    assert np.array_equal(clustered.foreground, plain.foreground)


@pytest.mark.parametrize("method", ["global", "clahe"])
def test_prepare_scan_equalise_keeps_foreground(method):
    plain = prepare_scan(head_scan(), DataConfig(size=32), ()).image
    equalised = prepare_scan(head_scan(), DataConfig(size=32, equalise=method), ()).image
    assert np.array_equal((equalised > BACKGROUND).any(axis=1), (plain > BACKGROUND).any(axis=1))
    assert (equalised[~np.broadcast_to((plain > BACKGROUND).any(axis=1)[:, None], plain.shape)] == BACKGROUND).all()
    assert equalised.max() <= 1


def test_prepare_scan_global_equalisation_gives_uniform_quantiles():
    tissue = prepare_scan(head_scan(), DataConfig(size=32, equalise="global"), ()).image[:, 0]
    tissue = tissue[tissue > BACKGROUND]
    assert np.quantile(tissue, (0.25, 0.5, 0.75)) == pytest.approx([-0.5, 0, 0.5], abs=0.05)


def test_prepared_folder_differs_by_cluster_settings(cohort, tmp_path):
    case = cohort.cases[0]
    settings = [{}, {"equalise": "global"}, {"clusters": 3}, {"clusters": 3, "cluster_by": "coordinates"}]
    configs = [DataConfig(size=32, spacing_mm=6.0, **changes) for changes in settings]
    assert len({prepared_folder(tmp_path, case, config, "content") for config in configs}) == len(configs)
    prepared = PreparedCase.open(prepare_case(tmp_path, case, configs[2], "content"))
    assert prepared.modalities == (*case.images, "kmeans")
    assert prepared.image.shape[1] == len(prepared.modalities)

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from ganseg_dist.metrics.lesionwise import LesionScores, lesionwise_scores, paper_lesionwise_dice
from tests.metrics.plain_lesionwise import plain_lesionwise

SHAPE = (48, 40, 32)
MM = (1.0, 1.0, 1.0)


def boxes(*corners_and_sizes, shape=SHAPE):
    mask = np.zeros(shape, bool)
    for corner, size in corners_and_sizes:
        mask[tuple(slice(start, start + length) for start, length in zip(corner, size, strict=True))] = True
    return mask


CUBE = (5, 5, 5)  # 125 voxels, above the floor


def test_lesionwise_scores_of_two_empty_masks_are_perfect():
    empty = np.zeros(SHAPE, bool)
    assert lesionwise_scores(empty, empty, MM) == LesionScores(1, 0, 1, 1, 1, 0, 0, 0, 0)


def test_lesionwise_scores_of_perfect_lesions():
    truth = boxes(((5, 5, 5), CUBE), ((30, 25, 20), CUBE))
    assert lesionwise_scores(truth, truth, MM) == LesionScores(1, 0, 1, 1, 1, 2, 2, 0, 0)


def test_lesionwise_scores_match_hand_computation():
    truth = boxes(((5, 5, 5), CUBE), ((30, 25, 20), CUBE))
    prediction = boxes(((6, 5, 5), CUBE), ((5, 30, 5), (1, 1, 1)))
    scores = lesionwise_scores(prediction, truth, MM)
    # The hit: 100 of 125 shared, shifted by one voxel.
    assert scores.dice == pytest.approx((200 / 250) / 3)
    assert scores.hd95 == pytest.approx((1 + 374 + 374) / 3)
    assert scores.sensitivity == pytest.approx((100 / 125) / 2)
    outside = np.prod(SHAPE) - 125
    assert scores.specificity == pytest.approx((outside - 25) / outside / 2)
    assert scores.detection_f1 == pytest.approx(2 / (2 + 1 + 1))
    assert (scores.n_truth, scores.n_predicted, scores.n_missed, scores.n_false_positive) == (2, 2, 1, 1)


def test_lesionwise_scores_of_false_positives_only():
    empty, two = np.zeros(SHAPE, bool), boxes(((5, 5, 5), CUBE), ((30, 25, 20), (1, 1, 1)))
    assert lesionwise_scores(two, empty, MM) == LesionScores(0, 374, 0, 0, 0, 0, 2, 0, 2)


def test_lesionwise_scores_of_a_miss_only():
    truth = boxes(((5, 5, 5), CUBE))
    assert lesionwise_scores(np.zeros(SHAPE, bool), truth, MM) == LesionScores(0, 374, 0, 0, 0, 1, 0, 1, 0)


# Two cubes of 5 with g empty voxels between: dilated by 3 each they fill a gap of 6 and touch face to face.
@pytest.mark.parametrize(("gap", "lesions"), [(5, 1), (6, 1), (7, 2)])
def test_lesionwise_scores_merge_lesions_whose_dilations_touch(gap, lesions):
    truth = boxes(((5, 10, 10), CUBE), ((10 + gap, 10, 10), CUBE))
    first_only = boxes(((5, 10, 10), CUBE))
    scores = lesionwise_scores(first_only, truth, MM)
    assert scores.n_truth == lesions
    # Merged: 125 found of 250 in one lesion. Apart: one found, one missed.
    assert scores.dice == pytest.approx(250 / 375 if lesions == 1 else 1 / 2)


# Dilated by 3, the cube reaches three voxels past its face.
@pytest.mark.parametrize(("gap", "touches"), [(0, True), (2, True), (3, False)])
def test_lesionwise_scores_match_component_within_dilation(gap, touches):
    truth = boxes(((5, 10, 10), CUBE))
    beside = boxes(((10 + gap, 10, 10), CUBE))
    scores = lesionwise_scores(beside, truth, MM)
    assert scores.dice == 0
    assert (scores.n_missed, scores.n_false_positive) == ((0, 0) if touches else (1, 1))
    # 5 + gap apart, face by face: every distance of the far face is that, so is the 95th percentile.
    assert scores.hd95 == (5 + gap if touches else 374)


def test_lesionwise_scores_use_union_of_matching_components():
    truth = boxes(((5, 5, 5), (10, 5, 5)))
    halves = boxes(((5, 5, 5), (4, 5, 5)), ((11, 5, 5), (4, 5, 5)))
    scores = lesionwise_scores(halves, truth, MM)
    assert scores.n_predicted == 2
    assert scores.dice == pytest.approx(2 * 200 / (200 + 250))
    assert scores.detection_f1 == 1


def test_lesionwise_scores_count_component_for_each_touched_lesion():
    truth = boxes(((5, 5, 5), CUBE), ((20, 5, 5), CUBE))
    bridge = boxes(((5, 5, 5), (20, 5, 5)))
    scores = lesionwise_scores(bridge, truth, MM)
    assert (scores.n_truth, scores.n_missed, scores.n_false_positive) == (2, 0, 0)
    assert scores.dice == pytest.approx(2 * 125 / (125 + 500))


def test_lesionwise_scores_connect_components_across_corners():
    corner = boxes(((5, 5, 5), CUBE), ((10, 10, 10), CUBE))
    assert lesionwise_scores(corner, corner, MM).n_predicted == 1


@pytest.mark.parametrize(
    ("size", "spacing", "scored"),
    [
        ((5, 5, 2), MM, False),  # 50 mm3: dropped
        ((17, 3, 1), MM, True),  # 51 mm3
        ((5, 5, 2), (1.0, 1.0, 1.1), True),  # 55 mm3
        ((5, 5, 4), (1.0, 1.0, 0.5), False),  # 100 voxels of 50 mm3 together
        ((5, 5, 2), (1.0000000149,) * 3, False),  # an affine's rounding error
        ((5, 5, 2), None, False),  # 50 voxels of a picture
        ((17, 3, 1), None, True),
    ],
)
def test_lesionwise_scores_drop_lesions_up_to_50_mm3(size, spacing, scored):
    truth = boxes(((5, 5, 5), size))
    missed = lesionwise_scores(np.zeros(SHAPE, bool), truth, spacing)
    assert (missed.n_truth, missed.n_missed) == ((1, 1) if scored else (0, 0))
    assert (missed.dice, missed.hd95) == ((0, 374) if scored else (1, 0))


def test_lesionwise_scores_do_not_count_hit_of_dropped_lesion_as_false():
    truth = boxes(((5, 5, 5), (2, 2, 2)))
    scores = lesionwise_scores(truth, truth, MM)
    assert scores == LesionScores(1, 0, 1, 1, 1, n_truth=0, n_predicted=1, n_missed=0, n_false_positive=0)


def test_lesionwise_scores_spacing_scales_distance_not_dilation():
    truth = boxes(((5, 10, 10), CUBE))
    beside = boxes(((12, 10, 10), CUBE))
    assert lesionwise_scores(beside, truth, (4.0, 1.0, 1.0)).hd95 == 28


def test_lesionwise_scores_of_lesion_that_fills_image():
    full = np.ones((8, 8, 8), bool)
    assert lesionwise_scores(full, full, MM) == LesionScores(1, 0, 1, 1, 1, 1, 1, 0, 0)


def test_lesionwise_scores_accept_2d_images_and_thin_stacks():
    truth = boxes(((5, 5), (10, 10)), shape=(40, 40))
    prediction = boxes(((6, 5), (10, 10)), shape=(40, 40))
    scores = lesionwise_scores(prediction, truth)
    assert scores.dice == pytest.approx(0.9)
    assert scores.hd95 == 1
    assert lesionwise_scores(prediction[..., None], truth[..., None]) == scores
    thin = lesionwise_scores(np.stack([prediction] * 2, -1), np.stack([truth] * 2, -1))
    assert thin.dice == pytest.approx(0.9)


@pytest.mark.parametrize("spacing", [MM, (0.9, 1.2, 3.0)])
@pytest.mark.parametrize("seed", range(5))
def test_lesionwise_scores_equal_plain_transcription(seed, spacing):
    rng = np.random.default_rng(seed)
    field, other = (gaussian_filter(rng.standard_normal(SHAPE), 1.3) for _ in range(2))
    mixed = field + 0.5 * other
    truth = field > np.quantile(field, 0.995)
    prediction = mixed > np.quantile(mixed, 0.995)
    found = lesionwise_scores(prediction, truth, spacing)
    expected = plain_lesionwise(prediction, truth, spacing)
    got = (found.dice, found.hd95, found.sensitivity, found.specificity)
    counts = (found.n_truth, found.n_predicted, found.n_missed, found.n_false_positive)
    assert counts[0] >= 1
    assert counts[1] >= 3
    assert (*got, *counts) == pytest.approx(expected, abs=1e-9)


def test_paper_lesionwise_dice_ignores_dilation_size_and_false_positives():
    truth = boxes(((5, 5, 5), (4, 4, 4)), ((12, 5, 5), (1, 1, 1)))
    prediction = boxes(((6, 5, 5), (4, 4, 4)), ((30, 30, 20), CUBE))
    # 48 of 64 shared in the first; the voxel three away from it is a lesion of its own, and missed.
    assert paper_lesionwise_dice(prediction, truth) == pytest.approx((48 / 64 + 0) / 2)
    # BraTS merges the two and counts the far cube.
    assert lesionwise_scores(prediction, truth, MM).n_truth == 1


def test_paper_lesionwise_dice_of_empty_masks():
    empty, some = np.zeros(SHAPE, bool), boxes(((5, 5, 5), CUBE))
    assert paper_lesionwise_dice(empty, empty) == 1
    assert paper_lesionwise_dice(some, empty) == 0
    assert paper_lesionwise_dice(empty, some) == 0

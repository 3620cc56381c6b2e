"""Scores of sets of images, against the same formulas written for one set, and paired over patients."""

import numpy as np
import pytest

from ganseg_dist.errors import DataError
from ganseg_dist.evaluation.results import ImageRow
from ganseg_dist.metrics.classification import classification_scores, operating_point
from ganseg_dist.studies.experiments.measures import (
    ACCURACY,
    AREAS,
    AUROC,
    CLASSIFICATION,
    SENSITIVITY,
    SPECIFICITY,
    YOUDEN_J,
    MeanOf,
    image_rows,
    measures_of,
)
from ganseg_dist.systems import recipe

CLASSES = ("none", "lesion")


def images(*, patients=7, each=9, seed=0, skill=0.25, classes=CLASSES):
    """Images whose class is predicted a little better than by chance; the last one's class is not known."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(patients * each):
        truth = number % len(classes)
        guess = rng.dirichlet(np.ones(len(classes)))
        # In hundredths, so that some images are as sure as others.
        probability = ((1 - skill) * guess + skill * np.eye(len(classes))[truth]).round(2)
        probability[0] = 1 - probability[1:].sum()
        predicted = classes[int(probability.argmax())]
        patient = f"p{number // each}"
        rows.append(
            ImageRow("c", patient, "x", number, classes[truth], predicted, tuple(probability.clip(0, 1).tolist()))
        )
    return [*rows, ImageRow("c", "p0", "x", 0, None, classes[0], (1.0,) + (0.0,) * (len(classes) - 1))]


def of_metrics(rows, classes=CLASSES):
    known = [row for row in rows if row.truth is not None]
    truth = np.array([classes.index(row.truth) for row in known])
    return classification_scores(
        truth, np.array([row.probability for row in known]), [row.patient for row in known], classes
    )


@pytest.mark.parametrize("classes", [CLASSES, ("glioma", "none", "pituitary")])
def test_classification_measures_match_classification_scores(classes):
    rows = images(classes=classes)
    expected = of_metrics(rows, classes)
    numbers = image_rows(rows, classes)
    assert len(numbers) == len(rows) - 1, "an image of unknown class is no row"
    for measure in CLASSIFICATION:
        found, known = measure.interval([numbers]), getattr(expected, measure.name)
        assert (found.mean, found.n) == pytest.approx((known.mean, 7))
        assert (found.low, found.high) == pytest.approx((known.low, known.high), abs=1e-9)


def test_area_measures_match_classification_scores():
    rows = images()
    expected = of_metrics(rows)
    for measure in AREAS:
        found, known = measure.interval([image_rows(rows, CLASSES)]), getattr(expected, measure.name)
        assert (found.mean, found.n) == pytest.approx((known.mean, known.n))
        assert (found.low, found.high) == pytest.approx((known.low, known.high))


def test_rate_measures_match_operating_point():
    rows = [row for row in images() if row.truth is not None]
    numbers = image_rows(rows, CLASSES, 0.4)
    scores, positive = np.array([row.probability[1] for row in rows]), np.array([row.truth == "lesion" for row in rows])
    known = operating_point(scores, positive, [row.patient for row in rows], 0.4)
    sensitivity, specificity = SENSITIVITY.interval([numbers]), SPECIFICITY.interval([numbers])
    assert sensitivity.mean == pytest.approx(known.tp / (known.tp + known.fn))
    assert (sensitivity.low, sensitivity.high) == pytest.approx((known.sensitivity.low, known.sensitivity.high))
    assert specificity.mean == pytest.approx(known.specificity.mean)
    assert YOUDEN_J.interval([numbers]).mean == pytest.approx(sensitivity.mean + specificity.mean - 1)


def test_auroc_interval_averages_over_seeds():
    sharp = image_rows(images(skill=0.9), CLASSES)
    for row in sharp:
        row.scores["p"] = 0.5 + row.scores["p"] / 1000  # as sure of an order, on another scale
    blunt = image_rows(images(seed=1), CLASSES)
    both = AUROC.interval([sharp, blunt])
    assert both.mean == pytest.approx((AUROC.interval([sharp]).mean + AUROC.interval([blunt]).mean) / 2)
    assert both.n == 7


def test_auroc_difference_is_paired_by_patient():
    sharp, blunt = image_rows(images(skill=0.6), CLASSES), image_rows(images(skill=0.2), CLASSES)
    found = AUROC.difference([sharp], [blunt])
    assert found.difference.mean == pytest.approx(AUROC.interval([sharp]).mean - AUROC.interval([blunt]).mean)
    assert found.difference.low <= found.difference.mean <= found.difference.high
    same = AUROC.difference([sharp], [sharp])
    assert (same.difference.low, same.difference.mean, same.difference.high) == (0, 0, 0)
    assert ACCURACY.difference([sharp], [blunt]).difference.n == 7
    with pytest.raises(DataError, match="auroc: the arms have other patients"):
        AUROC.difference([sharp], [[row for row in blunt if row.patient != "p0"]])


def test_measures_reject_images_of_one_class():
    alone = [row for row in image_rows(images(), CLASSES, 0.5) if row.scores["true"] == 1]
    for measure in (*AREAS, SPECIFICITY, YOUDEN_J):
        with pytest.raises(DataError, match="all of one class"):
            measure.interval([alone])


def test_measures_of_follows_task():
    assert [measure.name for measure in measures_of(recipe("ganet_seg_debug"))] == [
        "wt/dice", "wt/iou", "wt/sensitivity",
    ]  # fmt: skip
    assert [measure.name for measure in measures_of(recipe("dl_gan_cnn_debug"))] == [
        "accuracy", "precision", "recall", "f1",
    ]  # fmt: skip
    assert MeanOf("wt/dice").needed == ("wt/dice",)

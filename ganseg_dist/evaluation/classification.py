"""Classifies prepared slices one by one, and scores the classes with intervals over patients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from ganseg_dist.atomic import whole_folder, write_json
from ganseg_dist.data.batch import Batch
from ganseg_dist.data.cohort import Case
from ganseg_dist.data.preprocess import PreparedScan
from ganseg_dist.data.slices import SliceSet
from ganseg_dist.data.store import PreparedCase
from ganseg_dist.errors import DataError, RunError
from ganseg_dist.evaluation.results import ClassSummary, ImageRow, ValidatedPoint, extended, write_images
from ganseg_dist.inference.predictor import Predictor, check_finite
from ganseg_dist.metrics.classification import classification_scores, operating_point, threshold_at_specificity
from ganseg_dist.systems.base import System

Indices = npt.NDArray[np.int64]

IMAGES_AT_ONCE = 16
SPECIFICITY = 0.9
"""Specificity at which the sensitivity of two classes is reported."""


def classify(
    system: System,
    slices: SliceSet,
    classes: Sequence[str],
    *,
    device: torch.device | None = None,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[ImageRow, ...]:
    """Every slice's class probabilities; the system sees neither its regions nor its label.

    Args:
        classes: names, in the order of the system's outputs and of `slices.label`.
        device: where the system's networks are.

    Raises RunError when there are no slices, or the system gives no probabilities of these classes, and DataError
    naming the slice where one is NaN.
    """
    if not len(slices):
        raise RunError("classify: no slice with enough foreground in it; choose other cases")
    rows: list[ImageRow] = []
    for probabilities in class_probabilities(
        system, lambda indices: slices.read(indices)[0], np.arange(len(slices)), classes, device or torch.device("cpu")
    ):
        for index, probability in probabilities.items():
            case, label = slices.cases[slices.case_of[index]], int(slices.label[index])
            truth = classes[label] if label >= 0 else None
            rows.append(_row(case, int(slices.slice_of[index]), truth, classes, probability))
        advance(len(rows), len(slices))
    return tuple(rows)


def classify_prepared(predictor: Predictor, case: Case, prepared: PreparedScan) -> list[ImageRow]:
    """Classify the slices of a scan that have a foreground in them; their class is not known.

    Raises DataError when no slice has one, and where a probability is NaN.
    """
    usable = np.flatnonzero(prepared.usable)
    if not len(usable):
        raise DataError(f"{case.id}: no slice with enough foreground in it; check the image")
    classes = predictor.config.data.classes or ()
    batches = class_probabilities(
        predictor.system, lambda indices: prepared.image[indices], usable, classes, predictor.device
    )
    return [_row(case, index, None, classes, each) for batch in batches for index, each in batch.items()]


def summarise_classes(
    rows: Sequence[ImageRow],
    classes: Sequence[str],
    validation: Sequence[ImageRow] = (),
    elbow: Sequence[tuple[int, float]] = (),
) -> ClassSummary:
    """Scores of the rows whose class is known. Raises DataError where there are none.

    Args:
        validation: rows of validation patients. Of two classes, the threshold that keeps SPECIFICITY there gives
            the `operating_point` here; without them it is None.
        elbow: of the training images, for a system that starts from k-means.
    """
    known = [row for row in rows if row.truth is not None]
    if not known:
        raise DataError(f"classify: no image of a known class among {', '.join(classes)}; give cases with classes")
    truth = np.array([classes.index(row.truth) for row in known if row.truth is not None])
    probability = np.array([row.probability for row in known])
    return ClassSummary(
        classes=tuple(classes),
        n_images=len(rows),
        n_known=len(known),
        scores=classification_scores(truth, probability, [row.patient for row in known], classes),
        operating_point=_operating_point(known, classes, validation),
        elbow=tuple(elbow),
    )


def save_classification(
    folder: Path,
    rows: Sequence[ImageRow],
    classes: Sequence[str],
    validation: Sequence[ImageRow] = (),
    elbow: Sequence[tuple[int, float]] = (),
) -> ClassSummary:
    """Write images.csv and summary.json in place of earlier ones; returns the summary.

    Raises DataError as `summarise_classes` does, GansegError when a file cannot be written; the earlier ones then stay.
    """
    summary = summarise_classes(rows, classes, validation, elbow)
    with whole_folder(folder) as unfinished:
        write_images(unfinished / "images.csv", rows, classes)
        write_json(unfinished / "summary.json", summary.model_dump())
    return summary


def class_probabilities(
    system: System,
    planes: Callable[[Indices], npt.NDArray[np.floating]],
    indices: Indices,
    classes: Sequence[str],
    device: torch.device,
) -> Iterator[dict[int, tuple[float, ...]]]:
    """Class probabilities of the planes (B, C, H, W) at these indices, a batch at a time, by index.

    Raises RunError when the system gives none of these classes.
    """
    for start in range(0, len(indices), IMAGES_AT_ONCE):
        batch_indices = indices[start : start + IMAGES_AT_ONCE]
        with torch.inference_mode():
            probability = system.predict(_unlabelled(planes(batch_indices)).to(device)).classes
        if probability is None or probability.shape[1] != len(classes):
            raise RunError(f"classify: this model gives no probabilities of {', '.join(classes)}; choose another")
        rows = probability.float().tolist()
        yield {int(index): tuple(row) for index, row in zip(batch_indices, rows, strict=True)}


def _unlabelled(image: npt.NDArray[np.floating]) -> Batch:
    planes = torch.from_numpy(np.ascontiguousarray(image, np.float32))
    unknown = torch.full((len(planes),), -1)
    return Batch(planes, torch.zeros(len(planes), 0, *planes.shape[2:]), torch.zeros_like(unknown), unknown)


def _row(
    case: Case | PreparedCase, index: int, truth: str | None, classes: Sequence[str], probability: tuple[float, ...]
) -> ImageRow:
    check_finite(f"{case.id}, slice {index + 1}", "class probability", probability)
    predicted = classes[int(np.argmax(probability))]
    return ImageRow(case.id, case.patient, case.site, index, truth, predicted, probability)


def _operating_point(
    rows: Sequence[ImageRow], classes: Sequence[str], validation: Sequence[ImageRow]
) -> ValidatedPoint | None:
    """For two classes, with the second as the positive one; else None."""
    calibrating = [row for row in validation if row.truth is not None]
    if len(classes) != 2 or not calibrating:
        return None
    threshold = threshold_at_specificity(*_second_class(calibrating, classes), SPECIFICITY)
    if threshold is None:
        return None
    point = operating_point(*_second_class(rows, classes), [row.patient for row in rows], threshold)
    patients = len({row.patient for row in calibrating})
    return extended(ValidatedPoint, point, validated_specificity=SPECIFICITY, calibrated_on=patients)


def _second_class(
    rows: Sequence[ImageRow], classes: Sequence[str]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """The second class's probability (N,), and whether it is the truth (N,)."""
    return np.array([row.probability[1] for row in rows]), np.array([row.truth == classes[1] for row in rows])

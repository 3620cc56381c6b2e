"""Score a trained run, a segmenter or a classifier, on its test patients as rows of a table."""

from __future__ import annotations

from ganseg_dist.config import RunConfig
from ganseg_dist.data.cohort import Cohort, Split
from ganseg_dist.errors import DataError
from ganseg_dist.evaluation.arms import ModelArm
from ganseg_dist.evaluation.classification import classify, save_classification
from ganseg_dist.evaluation.results import CaseRow
from ganseg_dist.evaluation.segmentation import evaluate, save_evaluation
from ganseg_dist.inference.predictor import Predictor
from ganseg_dist.planning.prepare import prepared_slices
from ganseg_dist.runs import Run
from ganseg_dist.studies.experiments.measures import image_rows
from ganseg_dist.tracking.results import log_evaluation


def score_run(run: Run, cohort: Cohort, split: Split) -> list[CaseRow]:
    """A row per case on its grid, or for a classifier a row per slice; saved as by `ganseg evaluate`."""
    score = {"segmentation": _score_cases, "classification": _score_images}[run.config().system.task]
    return score(run, cohort, split)


def check_classes(config: RunConfig, cohort: Cohort, split: Split) -> None:
    """Prepare validation and test patients, so that missing classes are noticed before hours of training.

    Args:
        config: resolved.

    Raises DataError when one of the two parts has images of fewer than two classes.
    """
    classes = config.data.classes or ()
    for part in ("validation", "test"):
        labels = prepared_slices(cohort.of_patients(getattr(split, part)), config).label
        present = [name for index, name in enumerate(classes) if (labels == index).any()]
        if len(present) < 2:
            content = f"images of {present[0]} alone" if present else "no image of a known class"
            raise DataError(
                f"{cohort.root}: its {part} patients have {content}; give more patients, "
                f"or a larger data.{part}_fraction"
            )


def _score_cases(run: Run, cohort: Cohort, split: Split) -> list[CaseRow]:
    cases = [case for case in cohort.of_patients(split.test) if case.mask is not None]
    predictor = Predictor.load(run.model)
    result = evaluate([ModelArm(run.name, "model", predictor)], cases, "test")
    summary = save_evaluation(run.evaluation("test"), result, predictor)
    log_evaluation(run, "test", summary.rows[0].scores)
    return result.rows[run.name]


def _score_images(run: Run, cohort: Cohort, split: Split) -> list[CaseRow]:
    """A row per slice; two classes are also called at the threshold of the usual validation specificity."""
    predictor = Predictor.load(run.model)
    config, classes = predictor.config, predictor.config.data.classes or ()
    validation, test = (
        classify(predictor.system, prepared_slices(cases, config), classes, device=predictor.device) if cases else ()
        for cases in (cohort.of_patients(split.validation), cohort.of_patients(split.test))
    )
    summary = save_classification(run.evaluation("test"), test, classes, validation)
    log_evaluation(run, "test", summary.scores.intervals)
    point = summary.operating_point
    return image_rows(test, classes, None if point is None else point.threshold)

"""Implausible predicted lesions, on prepared slices of a square foreground: four of eight columns."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from ganseg_dist.config import DataConfig
from ganseg_dist.data.grid import Grid
from ganseg_dist.evaluation.arms import ModelArm
from ganseg_dist.evaluation.plausibility import implausible
from ganseg_dist.evaluation.segmentation import evaluate, summarise
from ganseg_dist.inference.predictor import CasePrediction, PreparedPrediction
from tests.inference.untrained import predictor

CONFIG = DataConfig(modalities=("t1",), regions=("wt", "tc"))


def prediction_of(wt, tc=None, thresholds=(0.5, 0.5)):
    """Two slices of 8 x 8 of which columns 0 to 3 are foreground; regions by the columns that they fill."""
    image = np.full((2, 1, 8, 8), -1, np.float32)
    image[..., :4] = -0.5
    probability = np.zeros((2, 2, 8, 8), np.float32)
    for region, columns in enumerate((wt, tc or [])):
        probability[:, region, :, columns] = 0.7
    prepared = SimpleNamespace(image=image)
    raw = PreparedPrediction(probability, None, None, None)
    return CasePrediction(Grid((8, 8, 2), None), probability, None, thresholds, ((0, 1), (1,)), prepared, raw)


@pytest.mark.parametrize("columns", [[], [0, 1], [1, 5], [2, 3]])
def test_implausible_accepts_lesion_mostly_inside_foreground(columns):
    assert implausible(prediction_of(columns), CONFIG) is None


def test_implausible_reports_lesion_outside_foreground():
    flaw = implausible(prediction_of([3, 4, 5]), CONFIG)
    assert (flaw.check, flaw.problem) == (
        "lesion-outside-foreground", "67% of the predicted lesion lies outside the foreground",
    )  # fmt: skip


def test_implausible_reports_lesion_over_most_of_foreground():
    flaw = implausible(prediction_of([0, 1, 2]), CONFIG)
    assert (flaw.check, flaw.problem) == ("lesion-over-foreground", "the predicted lesion is 75% of the foreground")


def test_implausible_includes_inner_regions_at_model_thresholds():
    assert implausible(prediction_of([0], [1, 2]), CONFIG).check == "lesion-over-foreground"
    assert implausible(prediction_of([0], [1, 2], (0.5, 0.9)), CONFIG) is None


def test_implausible_reports_lesion_of_empty_image():
    nothing = prediction_of([0])
    nothing.prepared.image[:] = -1
    assert implausible(nothing, CONFIG).problem == "100% of the predicted lesion lies outside the foreground"


def test_implausible_takes_whole_colour_picture_as_foreground():
    colour = CONFIG.model_copy(update={"modalities": ("red", "green", "blue")})
    assert implausible(prediction_of([3, 4, 5]), colour) is None


def test_evaluate_warns_of_and_counts_implausible_cases(tmp_path, cohort):
    cases = [replace(case, id=f"c{n}") for n, case in enumerate(cohort.cases[:2])]
    model = predictor(tmp_path / "model", ("t1",), ("wt",))
    list(model.system.networks["segmenter"].parameters())[-1].fill_(100)  # everything is lesion
    warnings = []
    result = evaluate([ModelArm("m", "model", model)], cases, "test", warn=warnings.append)
    assert [line.partition(": ")[0] for line in warnings] == ["c0", "c1"]
    assert "look at the mask" in warnings[0]
    assert sum(summarise(result, model).implausible.values()) == 2

"""Operating points: calibrated thresholds, and regions or cases without one."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from ganseg_dist.data.readers import read_cohort
from ganseg_dist.errors import DataError
from ganseg_dist.evaluation.arms import FlairThreshold, ModelArm
from ganseg_dist.evaluation.calibration import calibrate
from ganseg_dist.evaluation.segmentation import evaluate, summarise
from tests.data.cohorts import slice_of_head, write_rows
from tests.inference.untrained import predictor


@pytest.fixture
def cases(tmp_path):
    """Two grey pictures: a head with whole tumour alone, and one without any."""
    rows = []
    for number, label in enumerate((2, 0)):
        mask = np.zeros((48, 48), np.uint8)
        mask[20:26, 20:26] = label
        Image.fromarray(slice_of_head(number)).save(tmp_path / f"{number}.png")
        Image.fromarray(mask).save(tmp_path / f"{number}_mask.png")
        rows.append({"case": f"c{number}", "patient": f"p{number}", "flair": f"{number}.png",
                     "mask": f"{number}_mask.png", "labels": "brats"})  # fmt: skip
    return read_cohort(write_rows(tmp_path / "list.csv", rows)).cases


@pytest.fixture
def model(tmp_path):
    return predictor(tmp_path / "model", ("flair",), ("wt", "et"))


def test_calibrate_keeps_default_threshold_of_absent_region(model, cases):
    thresholds, best = calibrate(model, cases)
    assert set(best) == set(thresholds.regions) == {"wt"}
    assert best["wt"].n == 1
    assert thresholds.of("et") == 0.5
    assert thresholds.calibrated_on == 2


def test_calibrate_rejects_empty_masks(model, cases):
    with pytest.raises(DataError, match="calibrate: the masks of all 1 validation cases are empty"):
        calibrate(model, cases[1:])


def test_flair_threshold_is_none_without_lesion(model, cases):
    config = model.config.data
    fitted = FlairThreshold.fitted(cases, config)
    assert fitted is not None
    assert fitted == FlairThreshold.fitted(cases[:1], config)
    assert FlairThreshold.fitted(cases[1:], config) is None


def test_summarise_omits_sensitivity_of_absent_regions(model, cases):
    arm = ModelArm("m", "model", model)
    both, healthy = (summarise(evaluate([arm], some, "test"), model) for some in (cases, cases[1:]))
    assert both.absent == ("et",)
    assert "wt/sensitivity" in both.rows[0].scores
    assert healthy.absent == ("wt", "et")
    scores = healthy.rows[0].scores
    assert not [name for name in scores if name.endswith("sensitivity")]
    assert {"wt/dice", "et/dice", "wt/specificity"} <= set(scores)


def test_calibrate_rejects_cases_without_mask(model, cases):
    with pytest.raises(DataError, match="no validation case with a mask"):
        calibrate(model, [replace(case, mask=None) for case in cases])

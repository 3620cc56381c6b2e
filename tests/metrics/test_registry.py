"""Each score is registered once, with its direction."""

import numpy as np
import pytest

from ganseg_dist.config import override
from ganseg_dist.errors import ConfigError
from ganseg_dist.metrics.registry import REGISTERED, SCORES, common_mode, find_score
from ganseg_dist.metrics.segmentation import case_scores
from ganseg_dist.report.score_text import direction, score_label
from ganseg_dist.studies.sweeps.metric import metrics_of
from ganseg_dist.systems import build_system, recipe, recipes

COHORT = {
    "segmentation": {"data.modalities": ["t1", "flair"], "data.regions": ["wt", "tc", "et"]},
    "classification": {"data.modalities": ["t1"], "data.classes": ["healthy", "tumour"]},
}


def stages():
    for name in recipes():
        config = recipe(name)
        for stage in build_system(override(config, COHORT[config.system.task])).stages:
            yield pytest.param(stage, id=f"{name}-{stage.name}")


@pytest.mark.parametrize("stage", stages())
def test_stage_scores_are_registered(stage):
    for score in (*stage.scores, *stage.monitor.scores, *(alarm.score for alarm in stage.alarms)):
        assert score_label(score)
    assert common_mode(stage.monitor.scores) == stage.monitor.mode


@pytest.mark.parametrize("name", recipes())
def test_metrics_of_sweep_default_to_monitor_score_and_direction(name):
    config = override(recipe(name), COHORT[recipe(name).system.task])
    (metric,) = metrics_of((), config)
    monitor = build_system(config).stages[-1].monitor
    assert metric.score in monitor.scores
    assert metric.mode == monitor.mode == {"dice_wt": "max", "cross_entropy": "min"}[metric.score]


@pytest.mark.parametrize("spacing_mm", [None, (1.0, 1.0, 2.0)])
def test_case_scores_are_registered_with_unit(spacing_mm):
    masks = np.zeros((1, 4, 4, 4), bool)
    scores = case_scores(masks, masks, ["wt"], spacing_mm, foreground=np.ones((4, 4, 4), bool))
    assert {find_score(name).name for name in scores} == {score.name for score in REGISTERED if score.of_scan}
    distances = {score_label(name) for name in scores if find_score(name).units}
    unit = "px" if spacing_mm is None else "mm"
    assert distances == {f"HD95, {unit}", f"Lesion-wise HD95, {unit}"}


@pytest.mark.parametrize(
    ("name", "score"),
    [
        ("dice", "dice"),
        ("val/dice_wt", "dice"),
        ("dice_liver_tumour", "dice"),
        ("test/wt/dice", "dice"),
        ("et/hd95_px", "hd95"),
        ("val/hd95_wt", "hd95"),
        ("wt/lesion_hd95_mm", "lesion_hd95"),
        ("lesion_f1_et", "lesion_f1"),
        ("hole_l1", "hole_l1"),
        ("l1", "l1"),
    ],
)
def test_find_score_ignores_region_unit_and_part(name, score):
    assert find_score(name) is SCORES[score]


@pytest.mark.parametrize("name", ["dcie", "dice_", "f1_wt", "accuracy_mm", "wt/", "", "val/loss"])
def test_find_score_rejects_unknown_name(name):
    with pytest.raises(ConfigError, match=rf"^{name}: is no score"):
        find_score(name)


def test_direction_matches_definition_of_score():
    smaller = {score.name for score in REGISTERED if direction(score.name) == "↓"}
    assert smaller == {
        "hd95", "lesion_hd95", "lesions_missed", "lesions_false_positive", "cross_entropy", "hole_l1", "l1", "epsilon",
        "expected_calibration_error",
    }  # fmt: skip
    neither = {score.name for score in REGISTERED if direction(score.name) == ""}
    assert neither == {"lesions_true", "lesions_predicted", "diversity", "relative_diversity", "presence"}


def test_no_scan_score_name_is_prefix_of_another_with_region():
    """dice_surface of the region wt would be taken for dice of the region surface_wt."""
    of_scan = [score.name for score in REGISTERED if score.of_scan]
    assert not [name for name in SCORES for other in of_scan if name.startswith(f"{other}_")]


def test_score_labels_are_unique():
    assert len({score.label for score in REGISTERED}) == len(SCORES) == len(REGISTERED)

"""Metrics of a trial: scores of the epoch that it would keep, and of whole scans where requested."""

import math

import pytest

from ganseg_dist.config import override
from ganseg_dist.engine.state import Epoch
from ganseg_dist.errors import ConfigError
from ganseg_dist.studies.sweeps.metric import metrics_of, scores_so_far
from ganseg_dist.systems import build_system, recipe
from ganseg_dist.systems.base import monitors_of

CONFIG = override(recipe("ganet_seg_debug"), {"data.modalities": ["t1", "flair"], "data.regions": ["wt"]})
CLASSES = override(recipe("gan_detector_debug"), {"data.modalities": ["t1"], "data.classes": ["no", "yes"]})


def history(*values: float, stage: str = "segment") -> list[Epoch]:
    return [
        Epoch(stage, epoch, step=0, workers=1, losses={}, scores={"dice_wt": value})
        for epoch, value in enumerate(values)
    ]


def scores_after(*values: float, **fields) -> dict:
    config = override(CONFIG, fields)
    monitors = monitors_of(build_system(config))
    healthy = history(0.5, stage="healthy")
    return scores_so_far([*healthy, *history(*values)], metrics_of((), config), monitors, config)


def test_metrics_of_recipe_defaults_to_monitor():
    (metric,) = metrics_of((), CONFIG)
    assert (metric.name, metric.mode, metric.every_epoch) == ("val/dice_wt", "max", True)
    (loss,) = metrics_of((), CLASSES)
    assert (loss.name, loss.mode, loss.every_epoch) == ("val/cross_entropy", "min", True)


def test_scores_so_far_are_nan_for_whole_scan_metrics():
    metrics = metrics_of(("val/dice_wt", "val/hd95_wt"), CONFIG)
    monitors = monitors_of(build_system(CONFIG))
    found = scores_so_far(history(0.5), metrics, monitors, CONFIG)
    assert (found["epoch"], found["val/dice_wt"]) == (1, 0.5)
    assert math.isnan(found["val/hd95_wt"])


def test_metrics_of_minimizes_distances_of_whole_scans():
    dice, distance = metrics_of(("val/dice_wt", "val/hd95_wt"), CONFIG)
    assert (distance.mode, distance.every_epoch) == ("min", False)
    assert distance.of_scan({"wt/hd95_mm": 7.0, "wt/dice": 0.5}) == 7.0
    assert distance.of_scan({"wt/hd95_px": 3.0}) == 3.0
    assert math.isnan(distance.of_scan({"wt/dice": 0.5}))
    assert dice.of_scan({"wt/dice": 0.5}) == 0.5


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ("val/dice_et",),
            r"--metric val/dice_et: no such score of ganet_seg_debug; did you mean val/dice_wt?",
        ),
        (("dice_wt",), r"--metric dice_wt: no such score"),
        (("val/dice_wt", "val/dice_wt"), "names one twice"),
    ],
)
def test_metrics_of_rejects_unknown_metrics(names, message):
    with pytest.raises(ConfigError, match=message):
        metrics_of(names, CONFIG)


def test_scores_so_far_use_kept_epoch():
    later = {"system.supervised_epochs": 0}
    assert scores_after(0.2, 0.6, 0.4, **later) == {"epoch": 3, "val/dice_wt": 0.6}
    assert scores_after(0.2, 0.6, 0.4, **later, **{"train.keep": "last"}) == {"epoch": 3, "val/dice_wt": 0.4}


def test_scores_so_far_omit_earlier_stages():
    result = scores_after()
    assert "epoch" not in result
    assert math.isnan(result["val/dice_wt"])

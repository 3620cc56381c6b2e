"""Search of thresholds: metrics, scores and the thresholds that it stores."""

import json
from pathlib import Path

import numpy as np
import pytest

from ganseg_dist.digests import read_sealed, sealed
from ganseg_dist.errors import ConfigError, RunError
from ganseg_dist.evaluation.probabilities import KeptCase
from ganseg_dist.inference.model_folder import Thresholds
from ganseg_dist.runs import Run, named_run
from ganseg_dist.studies.sweeps.publish import best_thresholds, best_values, save_sweep, write_page
from ganseg_dist.studies.sweeps.sweep import Sweep
from ganseg_dist.studies.sweeps.thresholds import (
    ThresholdJob,
    ThresholdRequest,
    scores_at,
    search_thresholds,
    threshold_metrics,
    with_thresholds,
)
from tests.data.records import data_record
from tests.inference.untrained import model_folder
from tune_spaces.thresholds import THRESHOLDS

REGIONS = ("wt", "tc")


def line(probability, truth, score=(), abnormal=()) -> KeptCase:
    """A scan of one row: (R, n, 1, 1) of both."""
    values = np.array(probability, np.float32)[..., None, None]
    masks = np.array(truth, bool)[..., None, None]
    size = values.shape[1]
    return KeptCase(
        "c", "p", (1.0, 1.0, 1.0), (size + 2, 1, 1), (1, 0, 0), values, masks,
        np.array(score, np.float32), np.array(abnormal, bool),
    )  # fmt: skip


CASE = line([[0.9, 0.6, 0.4], [0.2, 0.7, 0.1]], [[1, 1, 0], [0, 0, 0]], [0.1, 0.25, 0.8], [True, True, False])


def job(*names: str) -> ThresholdJob:
    return ThresholdJob(Path("kept"), REGIONS, ((0, 1), (1,)), Thresholds(), threshold_metrics(names, REGIONS))


def test_scores_at_averages_over_regions_present():
    search = job("val/dice", "val/sensitivity_wt", "val/hd95")
    at = scores_at({"threshold.wt": 0.5, "threshold.tc": 0.5}, [CASE], search)
    assert at == {"val/dice": 1.0, "val/sensitivity_wt": 1.0, "val/hd95": 0.0}
    lower = scores_at({"threshold.wt": 0.4, "threshold.tc": 0.5}, [CASE], search)
    assert lower["val/dice"] == pytest.approx(2 * 2 / (3 + 2))
    assert lower["val/hd95"] == pytest.approx(0.95), "of its two ends one lies on the mask, one a voxel away"
    higher = scores_at({"threshold.wt": 0.95, "threshold.tc": 0.95}, [CASE], search)
    assert higher["val/hd95"] == 5.0, "of nothing found: as far as the whole scan is long, not the box"
    assert scores_at({"threshold.wt": 0.95}, [CASE], search)["val/sensitivity_wt"] == 0.5, (
        "the core is whole tumour too"
    )


def test_scores_at_classifies_slices_below_realism_threshold():
    search = job("val/youden_j", "val/accuracy")
    assert scores_at({"threshold.realism": 0.3}, [CASE], search) == {"val/youden_j": 1.0, "val/accuracy": 1.0}
    assert scores_at({"threshold.realism": 0.2}, [CASE], search)["val/youden_j"] == 0.5


def test_threshold_metrics_rejects_unknown_and_mixed_metrics():
    with pytest.raises(ConfigError, match=r"--metric val/dice_et: .*as in val/dice_wt"):
        threshold_metrics(["val/dice_et"], REGIONS)
    with pytest.raises(ConfigError, match="of volumes and of slices"):
        threshold_metrics(["val/dice", "val/youden_j"], REGIONS)
    assert [metric.mode for metric in threshold_metrics(["val/hd95_tc", "val/lesion_f1"], REGIONS)] == ["min", "max"]


def test_with_thresholds_replaces_searched_values_only():
    earlier = Thresholds({"wt": 0.3, "tc": 0.4}, 0.7, 9)
    assert with_thresholds(earlier, {"threshold.tc": 0.6}, 3) == Thresholds({"wt": 0.3, "tc": 0.6}, 0.7, 3)
    assert with_thresholds(earlier, {"threshold.realism": 0.2}, 3) == Thresholds({"wt": 0.3, "tc": 0.4}, 0.2, 3)


@pytest.mark.slow
@pytest.mark.usefixtures("own_runs")
def test_search_thresholds_starts_at_defaults_and_stores_best(cohort):
    run = named_run("base")
    model_folder(run.model, ("t1", "flair"), REGIONS, thresholds=Thresholds({"wt": 0.47}))
    run.write("data.json", data_record())
    cases = [case for case in cohort.cases if case.mask is not None][:2]
    request = ThresholdRequest(run, THRESHOLDS, 6, "random", ("val/dice_wt", "val/hd95_wt"), "thr")
    seen = []
    done, _ = search_thresholds(request, cases, watch=lambda trial, number: seen.append(number))
    assert sorted(seen) == [1, 2, 3, 4, 5, 6]
    assert [dict(trial.values) for trial in done.trials[:2]] == [{"threshold.wt": 0.5}, {"threshold.wt": 0.47}]
    assert done.best.scores["val/dice_wt"] == max(trial.scores["val/dice_wt"] for trial in done.trials)

    save_sweep(done)
    page = write_page(Sweep.of(done)).read_text()
    assert "ganseg calibrate base --from-sweep thr" in page
    assert "Synthetic phantom" in page
    assert best_thresholds("thr", run) == (dict(done.best.values), len({case.patient for case in cases}))
    with pytest.raises(RunError, match="ganseg calibrate base --from-sweep thr"):
        best_values("thr")
    with pytest.raises(RunError, match="thr: is a sweep of the thresholds of base"):
        best_thresholds("thr", Run(run.folder.parent / "other"))

    again, _ = search_thresholds(request, cases, watch=lambda trial, number: pytest.fail("tried again"))
    assert [dict(trial.values) for trial in again.trials] == [dict(trial.values) for trial in done.trials]
    described = run.model / "model.json"
    described.write_text(json.dumps(sealed({**read_sealed(described), "weights": "another"})))
    with pytest.raises(RunError, match="thr: is of an earlier model of base"):
        best_thresholds("thr", run)

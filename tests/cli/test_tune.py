"""`ganseg tune` from the command line: invalid options fail before any data is read."""

import json

import pytest

from ganseg_dist.runs import Run
from tests.cli.conftest import assert_error


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (("tune",), 2, "tune: give a recipe and --data DATA, or --resume SWEEP"),
        (("tune", "ganet_seg_debug", "--scheduler", "best"), 2, "choose among asha, pbt, none"),
        (("tune", "ganet_seg_debug", "--search", "grid"), 2, "choose among optuna, random"),
        (("tune", "ganet_seg_debug", "--space", "other"), 2, "--space other: no such space"),
        (("tune", "ganet_seg_debug", "--metric", "val/dice"), 2, "--metric val/dice: no such score"),
        (("tune", "gan_osmosis_debug", "--space", "ganet_seg"), 2, "--space ganet_seg: is of ganet_seg"),
        (("tune", "ganet_seg_debug", "--set", "train.epoch=3"), 2, "did you mean train.epochs"),
        (("tune", "ganet_seg_debug", "--skew", "fets"), 2, "--skew: is of simulated hospitals; give --sites N"),
        (("tune", "ganet_seg_debug", "--run-name", "x" * 97), 2, "has 97 characters, and its trials' numbers"),
        (("tune", "ganet_seg_debug", "--sites", "two"), 2, "--sites two"),
        (("tune", "nothing", "--space", "thresholds"), 1, "nothing: no such run"),
        (("tune", "nothing", "--space", "thresholds", "--scheduler", "asha"), 2, "--scheduler: is of training"),
        (("train", "ganet_seg_debug", "--from-sweep", "nothing"), 1, "nothing: is no sweep"),
        (("federate", "ganet_seg_debug", "--from-sweep", "nothing"), 1, "nothing: is no sweep"),
    ],
)
def test_tune_rejects_invalid_options_in_one_line(ganseg, phantom, tmp_path, args, code, message):
    data = ("--data", phantom) if len(args) > 1 else ()
    assert_error(ganseg(*args, *data), code, message)
    assert not list((tmp_path / "runs").glob("tune-*"))


def test_tune_resume_rejects_unknown_sweep(ganseg):
    assert_error(ganseg("tune", "--resume", "nothing"), 1, "nothing: is no sweep in")
    assert_error(ganseg("tune", "--resume", "nothing", "--trials", "9"), 2, "takes everything from the sweep")
    assert_error(ganseg("tune", "ganet_seg_debug", "--resume", "nothing"), 2, "takes everything from the sweep")


def test_train_from_sweep_uses_values_of_best_trial(ganseg, phantom, tmp_path):
    folder = tmp_path / "runs" / "done"
    Run(folder).write("study.json", {"kind": "sweep", "trials": 1})
    assert_error(ganseg("evaluate", "done", "--data", phantom), 1, "done: is a sweep")
    args = (
        "train",
        "ganet_seg_debug",
        "--data",
        phantom,
        "--local",
        "--dry-run",
        "--show-config",
        "--from-sweep",
        "done",
    )
    assert_error(ganseg(*args), 1, "ganseg tune --resume done")
    Run(folder).write("best.json", {"values": {"train.learning_rate": 0.0123}})
    assert '"learning_rate": 0.0123' in ganseg(*args).out
    assert '"learning_rate": 0.5' in ganseg(*args, "--set", "train.learning_rate=0.5").out, "--set comes after"


def test_calibrate_from_sweep_stores_thresholds_of_best_trial(ganseg, run, tmp_path):
    folder = tmp_path / "runs" / "thr"
    weights = json.loads((run.model / "model.json").read_text())["weights"]
    Run(folder).write("study.json", {"kind": "sweep", "trials": 1, "run": run.name, "weights": weights, "patients": 3})
    Run(folder).write("best.json", {"values": {"threshold.wt": 0.37}})
    assert "wt: threshold 0.37, of thr" in ganseg("calibrate", run.name, "--from-sweep", "thr").out
    kept = json.loads((run.model / "thresholds.json").read_text())
    assert (kept["regions"]["wt"], kept["calibrated_on"]) == (0.37, 3)
    assert_error(ganseg("calibrate", run.name, "--from-sweep", "thr", "--gpu"), 2, "takes everything from the sweep")

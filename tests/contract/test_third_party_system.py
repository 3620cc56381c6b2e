"""A system in a package of its own goes through every command without an edit here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent / "toy_package"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("toy") / "runs"


@pytest.fixture(scope="module")
def ganseg(runs):
    """The command in a process that finds the package, whose entry point Python's metadata read."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(PACKAGE), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "GANSEG_RUNS": str(runs),
    }

    def run(*words):
        done = subprocess.run(
            [sys.executable, "-m", "ganseg_dist", *map(str, words)],
            env=environment, capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="module")
def trained(ganseg, phantom):
    ganseg("train", "toy_debug", "--data", phantom, "--local", "--run-name", "toy")
    return "toy"


def test_its_recipes_and_fields_are_listed(ganseg):
    assert json.loads(ganseg("recipes", "--json"))[-1] == "toy_debug"
    assert "Weight of the loss on recoloured copies." in ganseg("recipes", "toy_debug")


def test_it_trains_calibrates_evaluates_and_is_reported(ganseg, phantom, runs, trained):
    ganseg("calibrate", trained)
    ganseg("evaluate", trained, "--data", phantom)
    summary = json.loads((runs / trained / "evaluation" / "test" / "summary.json").read_text())
    assert summary["rows"][0]["scores"]["wt/dice"]["n"] == summary["n_patients"]
    assert (summary["detection"], summary["healthy"]) == (None, None)
    ganseg("report", trained)
    page = (runs / trained / "report.html").read_text()
    assert "toy_debug" in page
    assert "recoloured" in page


def test_it_predicts(ganseg, phantom, trained, tmp_path):
    ganseg("predict", trained, phantom, "--out", tmp_path / "masks")
    assert list((tmp_path / "masks").glob("*_mask.nii.gz"))


@pytest.mark.slow
def test_it_is_federated(ganseg, phantom, runs):
    ganseg("federate", "toy_debug", "--data", phantom, "--sites", "2", "--rounds", "1", "--local",
           "--run-name", "together")  # fmt: skip
    assert json.loads((runs / "together.federated" / "run.json").read_text())["status"] == "finished"


@pytest.mark.slow
def test_it_is_swept_by_its_own_space(ganseg, phantom, runs):
    ganseg("tune", "toy_debug", "--data", phantom, "--trials", "2", "--run-name", "swept")
    best = json.loads((runs / "swept" / "best.json").read_text())
    assert set(best["values"]) == {"system.recoloured_weight"}

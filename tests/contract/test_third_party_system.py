"""A third-party system, strategy and reader work with every command without changes to this package."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
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


def test_recipes_lists_third_party_recipe_and_fields(ganseg):
    assert json.loads(ganseg("recipes", "--json"))[-1] == "toy_debug"
    assert "Weight of the loss on recoloured copies." in ganseg("recipes", "toy_debug")


def test_federate_and_recipes_list_third_party_strategy(ganseg):
    assert "toy_mean" in ganseg("federate", "--help")
    fields = ganseg("recipes", "toy_debug")
    assert "federation.toy_damping" in fields
    assert "Share of the sent weights in the new ones." in fields


@pytest.fixture
def pairs(phantom, tmp_path):
    """Three patients of the phantom in the third-party layout."""
    for case in sorted(phantom.glob("BraTS20*"))[:3]:
        shutil.copy(case / f"{case.name}_flair.nii.gz", tmp_path / f"{case.name}.scan.nii.gz")
        mask = nibabel.load(case / f"{case.name}_seg.nii.gz")
        binary = (np.asanyarray(mask.dataobj) > 0).astype(np.uint8)
        nibabel.save(nibabel.Nifti1Image(binary, mask.affine), tmp_path / f"{case.name}.truth.nii.gz")
    return tmp_path


def test_check_recognises_third_party_layout(ganseg, pairs):
    found = ganseg("check", pairs)
    assert "3 patients" in found
    assert "toy_pairs" in found


@pytest.mark.slow
def test_third_party_system_calibrates_evaluates_and_reports(ganseg, phantom, runs, trained):
    ganseg("calibrate", trained)
    result = ganseg("evaluate", trained, "--data", phantom)
    summary = json.loads((runs / trained / "evaluation" / "test" / "summary.json").read_text())
    assert summary["rows"][0]["scores"]["wt/dice"]["n"] == summary["n_patients"]
    assert summary["detection"] is None
    gain = f"{summary['evidence']['gain']:.3f}"
    assert f"mean gain {gain}" in result
    ganseg("report", trained)
    page = (runs / trained / "report.html").read_text()
    assert "toy_debug" in page
    assert "recoloured" in page
    assert '<h2 id="test-recolouring">Recolouring</h2>' in page
    assert f"Mean gain {gain}" in page
    assert "toy_damping" not in (runs / trained / "config.json").read_text(), "it is read without the package, too"


@pytest.mark.slow
def test_third_party_system_predicts(ganseg, phantom, trained, tmp_path):
    ganseg("predict", trained, phantom, "--out", tmp_path / "masks")
    assert list((tmp_path / "masks").glob("*_mask.nii.gz"))


@pytest.mark.slow
def test_third_party_system_federates_with_third_party_strategy(ganseg, phantom, runs):
    ganseg("federate", "toy_debug", "--data", phantom, "--sites", "2", "--rounds", "1", "--local",
           "--strategy", "toy_mean", "--set", "federation.toy_damping=0.5", "--run-name", "together")  # fmt: skip
    run = runs / "together.federated"
    assert json.loads((run / "run.json").read_text())["status"] == "finished"
    assert json.loads((run / "config.json").read_text())["federation"]["toy_damping"] == 0.5
    ganseg("report", "together.federated")
    assert "toy_mean (toy_damping 0.5)" in (run / "report.html").read_text()


@pytest.mark.slow
def test_third_party_system_tunes_with_own_space(ganseg, phantom, runs):
    ganseg("tune", "toy_debug", "--data", phantom, "--trials", "2", "--run-name", "swept")
    best = json.loads((runs / "swept" / "best.json").read_text())
    assert set(best["values"]) == {"system.recoloured_weight"}

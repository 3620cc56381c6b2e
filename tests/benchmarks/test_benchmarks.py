"""That the benchmarks run and report; what they measure is for a quiet machine, and no test asserts a ratio."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(name, *options):
    command = [sys.executable, "-m", f"benchmarks.{name}", "--quick", *map(str, options)]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.mark.parametrize(
    ("name", "comparisons", "needs"),
    [
        ("lesionwise", 1, []),
        ("engine_step", 4, []),  # supervised, adversarial, generator, discriminator
        pytest.param("monai_loop", 2, ["monai", "nilearn"], marks=pytest.mark.slow),
        pytest.param("two_workers", 1, [], marks=pytest.mark.slow),
        pytest.param("federated_round", 2, ["nilearn"], marks=pytest.mark.slow),
        pytest.param("sweep_overhead", 1, ["nilearn"], marks=pytest.mark.slow),
        pytest.param("scaling", 6, [], marks=pytest.mark.slow),  # two recipes, each with one worker and twice with two
    ],
)
def test_prints_its_ratios(name, comparisons, needs, tmp_path):
    for package in needs:
        pytest.importorskip(package, reason="comes with pip install 'ganseg-dist[comparators,phantom]'")
    shown = run(name, "--json", tmp_path / "measured.json")
    measured = json.loads((tmp_path / "measured.json").read_text())
    assert len(measured) == shown.count(": ratio ") == comparisons
    for row in measured:
        assert row["what"] in shown
        assert 0 <= row["low"] <= row["ratio"] <= row["high"]


@pytest.mark.slow
def test_swin_unetr_is_scored_on_test_patients(tmp_path):
    for package in ("monai", "nilearn"):
        pytest.importorskip(package, reason="comes with pip install 'ganseg-dist[comparators,phantom]'")
    assert "SwinUNETR on 1 test patient: wt/dice" in run("swin_unetr", "--json", tmp_path / "scores.json")
    row = json.loads((tmp_path / "scores.json").read_text())["rows"][0]
    assert row["kind"] == "comparison"
    dice = row["scores"]["wt/dice"]
    assert 0 <= dice["low"] <= dice["mean"] <= dice["high"] <= 1


def test_a_gpu_waits_only_in_gaps_that_hold_a_copy_from_the_host():
    from benchmarks.engine_step import waiting_of_spans

    kernel, copy = False, True
    spans = [(kernel, 0, 4), (kernel, 5, 6), (copy, 7, 8), (kernel, 9, 10)]
    assert waiting_of_spans(spans) == pytest.approx(0.3)  # 6 to 9; 4 to 5 waits for something else
    assert waiting_of_spans([(kernel, 0, 9), (copy, 2, 3), (kernel, 9, 10)]) == 0  # hidden behind a kernel
    assert waiting_of_spans([]) == 0
